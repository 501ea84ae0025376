package import CShims
import Glibc
package import SystemPackage

/// Starts programs in processes and process groups of their own, with signals as at login.
package enum Spawn {
    /// Starts a program.
    ///
    /// - Parameters:
    ///   - path: an executable file; PATH is not searched.
    ///   - words: the program's name and its arguments.
    ///   - first: the lowest descriptor that the program does not inherit. Descriptors that other libraries have opened
    ///     may not be close-on-exec.
    ///   - isDeaf: whether the signals that ask a program to exit are blocked: SIGTERM, SIGINT and SIGHUP.
    ///   - prepare: sets up the descriptors below `first`.
    package static func start(
        _ path: String,
        _ words: [String],
        closingFrom first: CInt,
        isDeaf: Bool = false,
        _ prepare: (inout posix_spawn_file_actions_t) -> Void
    ) throws(Errno) -> pid_t {
        // The calls on `actions` fail only for want of memory, in which case Swift ends the process anyway.
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        prepare(&actions)
        _ = shim_spawn_close_from(&actions, first)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
        posix_spawnattr_setflags(&attributes, Int16(flags))
        var signals = sigset_t()
        sigemptyset(&signals)
        if isDeaf { for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, number) } }
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)

        let arguments = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var id: pid_t = 0
        _ = try kernel(.posixSpawn) {
            -posix_spawn(&id, path, &actions, &attributes, arguments, shim_environment())
        }
        return id
    }
}
