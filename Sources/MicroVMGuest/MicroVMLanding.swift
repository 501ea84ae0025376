import Firecracker
public import Guest
import LinuxSystem
public import Logging

/// A Firecracker of this host, just started, in which one microVM can arrive.
public struct MicroVMLanding: Landing {
    private let socketPath: String
    private let logger: Logger

    /// Makes a landing.
    ///
    /// - Parameter socketPath: Firecracker's API socket.
    /// - Throws: ``MicroVMError`` if no microVM could arrive there now.
    public init(socketPath: String, logger: Logger) throws {
        self.socketPath = socketPath
        self.logger = logger
        _ = try takeHost()
    }

    private func takeHost() throws -> FirecrackerHost {
        let host = try FirecrackerHost(at: socketPath, logger: logger)
        guard try host.api.instance().state == .notStarted else {
            throw MicroVMError("\(host.name) is there already; start another Firecracker for the one that comes")
        }
        return host
    }

    /// What was loaded into a Firecracker and is not wanted ends with it.
    public let takesAnother = false

    /// Nobody knows what its pages should hold.
    public var canVerify: Bool { false }

    /// Takes the Firecracker, which hands the microVM's memory over when it loads the snapshot.
    ///
    /// - Throws: ``MicroVMError`` when it cannot arrive here; `FirecrackerError` when nobody answers at the socket.
    public func prepare(
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
    /// Checks that this host has the memory.
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
