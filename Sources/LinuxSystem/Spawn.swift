package import CShims
import Glibc
package import SystemPackage

/// Starts programs in processes and process groups of their own, with signals as at login.
package enum Spawn {
    /// - Parameters:
    ///   - path: an executable file; it is not looked for elsewhere.
    ///   - words: its name and its arguments.
    ///   - first: the lowest of the descriptors that it does not get: what other libraries have opened may not be
    ///     close-on-exec.
    ///   - isDeaf: whether it takes none of the signals that tell a program to end: SIGTERM, SIGINT, SIGHUP.
    ///   - prepare: says which descriptors it gets below that one.
    package static func start(
        _ path: String,
        _ words: [String],
        closingFrom first: CInt,
        isDeaf: Bool = false,
        _ prepare: (inout posix_spawn_file_actions_t) -> Void
    ) throws(Errno) -> pid_t {
        // Setting these up fails for want of memory only, in which case Swift has ended the process.
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
