import CShims
import Glibc
import SystemPackage

/// This program in another process, which inherits chosen descriptors and outlives this process.
///
/// A worker has no input, and shares standard output and standard error with this process. It runs in its own process
/// group, so that signals from a terminal to this process do not reach it.
package struct WorkerProcess: ~Copyable, Sendable {
    /// The worker's process number.
    package let id: Int32

    /// The descriptors that a worker inherits; the worker takes them from ``Inherited`` in the same order.
    package struct Gifts: ~Copyable {
        fileprivate var descriptors: [CInt] = []

        package init() {}

        deinit {
            for descriptor in descriptors { _ = close(descriptor) }
        }

        /// Adds a copy of a userfaultfd.
        package mutating func add(_ userfaultfd: borrowing Userfaultfd) throws(SystemError) {
            try add(userfaultfd.descriptor.raw)
        }

        /// Adds a copy of a memory file.
        package mutating func add(_ file: borrowing MemoryFile) throws(SystemError) {
            try add(file.descriptor.raw)
        }

        /// Adds a copy of a process's pidfd.
        package mutating func add(_ process: borrowing PeerProcess) throws(SystemError) {
            try add(process.descriptor.raw)
        }

        /// Adds a copy of a lock, which is held until both this process and the worker have ended.
        package mutating func add(_ lock: borrowing ProcessLock) throws(SystemError) {
            try add(lock.descriptor.raw)
        }

        /// Adds a copy of a socket.
        package mutating func add(_ socket: borrowing StreamSocket) throws(SystemError) {
            try add(socket.descriptor.raw)
        }

        /// Adds a copy whose number lies above those that descriptors get in the worker.
        private mutating func add(_ raw: CInt) throws(SystemError) {
            descriptors.append(
                try attempt("copy a descriptor for a worker", advice: "raise `ulimit -n`") { () throws(Errno) in
                    try kernel(.fcntl) { orErrno(fcntl(raw, F_DUPFD_CLOEXEC, Inherited.first + 16)) }
                }
            )
        }
    }

    /// Starts this program with other arguments.
    ///
    /// - Parameters:
    ///   - arguments: the worker's arguments, without the program's name.
    ///   - name: the program's name, which `ps` shows; nil for that of this process.
    ///   - gifts: the descriptors that the worker inherits.
    ///   - isDeaf: whether the worker blocks SIGTERM, SIGINT and SIGHUP, which ask all processes of a service to exit
    ///     together.
    package init(
        _ arguments: [String],
        as name: String? = nil,
        giving gifts: borrowing Gifts,
        isDeaf: Bool = false
    ) throws(SystemError) {
        let descriptors = gifts.descriptors
        let words = [name ?? CommandLine.arguments[0]] + arguments
        id = try attempt("start a worker") { () throws(Errno) in
            try WorkerProcess.spawn(words, descriptors, isDeaf)
        }
    }

    /// Opens the worker's process, which keeps its number until ``waitForEnd()``.
    package func process() throws(SystemError) -> PeerProcess {
        let id = id
        let descriptor = try attempt("watch worker \(id)", advice: "raise `ulimit -n`") { () throws(Errno) in
            OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(id) })
        }
        return PeerProcess(adopting: descriptor, id: id)
    }

    /// Waits until the worker has ended, and returns how it ended.
    package consuming func waitForEnd() throws(SystemError) -> ChildProcess.End {
        let id = id
        var status: CInt = 0
        _ = try attempt("wait for a worker") { () throws(Errno) in
            try kernel(.waitpid) { orErrno(waitpid(id, &status, 0)) }
        }
        // WIFEXITED and its kin are macros, which are not imported: the low seven bits are the signal, the second byte
        // is the status.
        let signal = status & 0x7f
        return signal == 0 ? .exited(status: Int(status >> 8 & 0xff)) : .killed(signal: Int(signal))
    }

    private static func spawn(
        _ words: [String],
        _ descriptors: [CInt],
        _ isDeaf: Bool
    ) throws(Errno) -> pid_t {
        try Spawn.start(
            "/proc/self/exe",
            words,
            closingFrom: Inherited.first + CInt(descriptors.count),
            isDeaf: isDeaf
        ) { actions in
            for (index, descriptor) in descriptors.enumerated() {
                posix_spawn_file_actions_adddup2(&actions, descriptor, Inherited.first + CInt(index))
            }
        }
    }
}

/// The descriptors that this process inherited as a worker, in the order of ``WorkerProcess/Gifts``.
package struct Inherited: ~Copyable {
    static let first = STDERR_FILENO + 1
    private var next = Inherited.first

    /// Begins at the first inherited descriptor.
    ///
    /// Call this once, before the process opens a descriptor that could be mistaken for an inherited one.
    package init() {}

    private mutating func take() throws(HandedDescriptorError) -> OwnedDescriptor {
        let descriptor = next
        next += 1
        // A missing descriptor is a mistake on the command line, and not a bug of this program.
        guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else {
            throw HandedDescriptorError(reason: "descriptor \(descriptor) was not given to this process")
        }
        return OwnedDescriptor(descriptor)
    }

    /// Takes the next descriptor as a userfaultfd.
    package mutating func userfaultfd() throws(HandedDescriptorError) -> Userfaultfd {
        try Userfaultfd(handed: take(), serving: .eventRemove)
    }

    /// Takes the next descriptor as a userfaultfd that is only kept open, whatever its features are.
    ///
    /// - Throws: ``HandedDescriptorError`` if the descriptor was not inherited or is no userfaultfd, ``SystemError`` if
    ///   it cannot be inspected.
    package mutating func keptUserfaultfd() throws -> Userfaultfd {
        let descriptor = try take()
        guard try Userfaultfd.isUserfaultfd(descriptor) else {
            throw HandedDescriptorError(reason: "the descriptor is no userfaultfd")
        }
        return Userfaultfd(adopting: descriptor)
    }

    /// Takes the next descriptor as a memory file.
    ///
    /// - Throws: ``HandedDescriptorError`` if the descriptor was not inherited, ``SystemError`` if its size cannot be
    ///   read.
    package mutating func memoryFile() throws -> MemoryFile {
        try MemoryFile(adopting: take())
    }

    /// Takes the next descriptor as the pidfd of a process.
    ///
    /// - Parameter id: the process's number.
    package mutating func process(_ id: Int32) throws(HandedDescriptorError) -> PeerProcess {
        PeerProcess(adopting: try take(), id: id)
    }

    /// Takes the next descriptor as a socket.
    ///
    /// - Parameter peer: the name of the other end, for messages.
    package mutating func socket(to peer: String) throws(HandedDescriptorError) -> StreamSocket {
        StreamSocket(try take(), peer: peer)
    }
}
