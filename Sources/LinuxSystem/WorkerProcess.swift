import CShims
import Glibc
import SystemPackage

/// A program of this system in a process of its own that is given descriptors, and goes on when this process ends.
///
/// It has no input, and shares standard output and standard error. It is in a process group of its own, so that what a
/// terminal sends to this one does not reach it.
public struct WorkerProcess: ~Copyable, Sendable {
    /// Its number.
    public let id: Int32

    /// What a worker is given: in the worker, ``Inherited`` has the same.
    public struct Gifts: ~Copyable {
        fileprivate var descriptors: [CInt] = []

        /// Nothing yet.
        public init() {}

        deinit {
            for descriptor in descriptors { _ = close(descriptor) }
        }

        /// Adds a copy of a userfaultfd.
        public mutating func add(_ userfaultfd: borrowing Userfaultfd) throws(SystemError) {
            try add(userfaultfd.descriptor.raw)
        }

        /// Adds a copy of a memory file.
        public mutating func add(_ file: borrowing MemoryFile) throws(SystemError) {
            try add(file.descriptor.raw)
        }

        /// Adds a copy of a hold on a process.
        public mutating func add(_ process: borrowing PeerProcess) throws(SystemError) {
            try add(process.descriptor.raw)
        }

        /// Adds a copy of a lock, which is held until both have ended.
        public mutating func add(_ lock: borrowing ProcessLock) throws(SystemError) {
            try add(lock.descriptor.raw)
        }

        /// Adds a copy of a socket.
        public mutating func add(_ socket: borrowing StreamSocket) throws(SystemError) {
            try add(socket.descriptor.raw)
        }

        /// Copies lie above those numbers that the worker has them at.
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
    /// - Parameter isDeaf: whether it goes on when it is told to end, as all processes of a service are together.
    public init(_ arguments: [String], giving gifts: borrowing Gifts, isDeaf: Bool = false) throws(SystemError) {
        let descriptors = gifts.descriptors
        id = try attempt("start a worker") { () throws(Errno) in
            try WorkerProcess.spawn(arguments, descriptors, isDeaf)
        }
    }

    /// Waits until it has ended, and tells how.
    public consuming func waitForEnd() throws(SystemError) -> ChildProcess.End {
        let id = id
        var status: CInt = 0
        _ = try attempt("wait for a worker") { () throws(Errno) in
            try kernel(.waitpid) { orErrno(waitpid(id, &status, 0)) }
        }
        // WIFEXITED and its kin are macros: the low seven bits are the signal, the second byte is the status.
        let signal = status & 0x7f
        return signal == 0 ? .exited(status: Int(status >> 8 & 0xff)) : .killed(signal: Int(signal))
    }

    private static func spawn(
        _ arguments: [String],
        _ descriptors: [CInt],
        _ isDeaf: Bool
    ) throws(Errno) -> pid_t {
        try Spawn.start(
            "/proc/self/exe",
            [CommandLine.arguments[0]] + arguments,
            closingFrom: Inherited.first + CInt(descriptors.count),
            isDeaf: isDeaf
        ) { actions in
            for (index, descriptor) in descriptors.enumerated() {
                posix_spawn_file_actions_adddup2(&actions, descriptor, Inherited.first + CInt(index))
            }
        }
    }
}

/// What this process was given by the one that started it as a worker, in the order of ``WorkerProcess/Gifts``.
public struct Inherited: ~Copyable {
    static let first = STDERR_FILENO + 1
    private var next = Inherited.first

    /// Begins with the first.
    ///
    /// Made once in a process, before anything opens a descriptor that could be mistaken for one of these.
    public init() {}

    private mutating func take() throws(HandedDescriptorError) -> OwnedDescriptor {
        let descriptor = next
        next += 1
        // What is no descriptor is somebody's mistake on the command line, and not this program's.
        guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else {
            throw HandedDescriptorError(reason: "descriptor \(descriptor) was not given to this process")
        }
        return OwnedDescriptor(descriptor)
    }

    /// Takes a userfaultfd.
    public mutating func userfaultfd() throws(HandedDescriptorError) -> Userfaultfd {
        try Userfaultfd(handed: take(), serving: .eventRemove)
    }

    /// Takes a memory file.
    public mutating func memoryFile() throws -> MemoryFile {
        try MemoryFile(adopting: take())
    }

    /// Takes a hold on a process.
    public mutating func process(_ id: Int32) throws(HandedDescriptorError) -> PeerProcess {
        PeerProcess(adopting: try take(), id: id)
    }

    /// Takes a socket.
    public mutating func socket(to peer: String) throws(HandedDescriptorError) -> StreamSocket {
        StreamSocket(try take(), peer: peer)
    }
}
