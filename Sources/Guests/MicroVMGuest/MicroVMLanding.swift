import Firecracker
package import Guest
import LinuxSystem
package import Logging

/// A newly started Firecracker on this host, in which one microVM can arrive.
package struct MicroVMLanding: Landing {
    private let socketPath: String
    private let logger: Logger

    /// Makes a landing, after a check that a microVM could arrive there now.
    ///
    /// `socketPath` is the path of Firecracker's API socket.
    ///
    /// - Throws: ``MicroVMError`` if the Firecracker is not usable, `FirecrackerError` if its API does not answer.
    package init(socketPath: String, logger: Logger) throws {
        self.socketPath = socketPath
        self.logger = logger
        _ = try takeHost()
    }

    private func takeHost() throws -> FirecrackerHost {
        let host = try FirecrackerHost(at: socketPath, logger: logger)
        guard try host.api.instance().state == .notStarted else {
            throw MicroVMError("\(host.name) has already started; start another Firecracker for the one that arrives")
        }
        return host
    }

    /// False: a Firecracker that has loaded a snapshot cannot load another, and is killed.
    package let takesAnother = false

    /// False: this process does not know what a guest writes.
    package var canVerify: Bool { false }

    /// Takes control of the Firecracker, which hands over its memory once it loads the snapshot.
    ///
    /// - Throws: ``MicroVMError`` if the microVM cannot arrive here, `FirecrackerError` if the API does not answer.
    package func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        let configuration = try MicroVMConfiguration(description)
        let host = try takeHost()
        try configuration.checkMemory()
        return try MicroVM(configuration, host, onMemory: onMemory)
    }
}

extension MicroVMConfiguration {
    /// Checks that this host has enough memory, or enough free huge pages.
    fileprivate func checkMemory() throws(MicroVMError) {
        if pageSize == HugePagePool.pageSize {
            let pages = byteCount / pageSize
            guard let shortage = HugePagePool.shortage(for: pages) else { return }
            throw MicroVMError("the microVM needs \(pages) huge pages of 2 MiB: \(shortage)")
        }
        guard let available = ProcessFile.availableMemory, byteCount > available else { return }
        throw MicroVMError(
            "the microVM has \(memoryMiB) MiB of memory, and this host has \(available >> 20) MiB available; free memory here"
        )
    }
}
