import CShims
import Glibc
import SystemPackage

/// A program of this system in a process of its own that is given descriptors, and goes on when this process ends.
///
/// It has no input, and shares standard output and standard error. It is in a process group of its own, so that what a
/// terminal sends to this one does not reach it.
public struct WorkerProcess: ~Copyable, Sendable {
    private let process: PeerProcess

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
    public init(_ arguments: [String], giving gifts: borrowing Gifts) throws(SystemError) {
        let descriptors = gifts.descriptors
        let id = try attempt("start a worker") { () throws(Errno) in
            try WorkerProcess.spawn(arguments, descriptors)
        }
        process = try attempt("watch a worker") { () throws(Errno) in
            PeerProcess(adopting: OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(id) }), id: id)
        }
    }

    /// Its number.
    public var id: Int32 { process.id }

    /// Waits until it has ended, and tells how.
    public consuming func waitForEnd() throws(SystemError) -> ChildProcess.End {
        let id = process.id
        var status: CInt = 0
        _ = try attempt("wait for a worker") { () throws(Errno) in
            try kernel(.waitpid) { orErrno(waitpid(id, &status, 0)) }
        }
        // WIFEXITED and its kin are macros: the low seven bits are the signal, the second byte is the status.
        let signal = status & 0x7f
        return signal == 0 ? .exited(status: Int(status >> 8 & 0xff)) : .killed(signal: Int(signal))
    }

    private static func spawn(_ arguments: [String], _ descriptors: [CInt]) throws(Errno) -> pid_t {
        // Setting these up fails for want of memory only, in which case Swift has ended the process.
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        for (index, descriptor) in descriptors.enumerated() {
            posix_spawn_file_actions_adddup2(&actions, descriptor, Inherited.first + CInt(index))
        }
        _ = shim_spawn_close_from(&actions, Inherited.first + CInt(descriptors.count))

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
        posix_spawnattr_setflags(&attributes, Int16(flags))
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)

        let path = "/proc/self/exe"
        let words = ([CommandLine.arguments[0]] + arguments).map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        var id: pid_t = 0
        _ = try kernel(.posixSpawn) {
            -posix_spawn(&id, path, &actions, &attributes, words, shim_environment())
        }
        return id
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
