import Glibc
import LinuxSystem
import OwnThread
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ChildProcessTests {
    private func run(
        _ script: String,
        keeping limit: Int = 4096
    ) throws -> (end: ChildProcess.End?, errors: String) {
        let child = try ChildProcess("/bin/sh", ["-c", script])
        let (end, errors) = try child.wait(milliseconds: 30_000, keeping: limit)
        return (end, String(decoding: errors, as: UTF8.self))
    }

    @Test func `a program's exit status and standard error are reported`() throws {
        #expect(try run("true") == (.exited(status: 0), ""))
        #expect(try run("echo out; echo one >&2; echo two >&2; exit 3") == (.exited(status: 3), "one\ntwo\n"))
        #expect(try run("echo last >&2; kill -TERM $$") == (.killed(signal: Int(SIGTERM)), "last\n"))
    }

    @Test func `the exit status can be read more than once`() throws {
        let child = try ChildProcess("/bin/sh", ["-c", "exit 7"])
        for _ in 0..<3 { #expect(try child.wait(milliseconds: 30_000).end == .exited(status: 7)) }
    }

    @Test func `a program that prints more errors than are kept is not blocked`() throws {
        let (end, errors) = try run("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 5", keeping: 10)
        #expect(end == .exited(status: 5))
        #expect(errors == "xxxxxxxxxx")
    }

    @Test func `dropping a running program kills it with all of its children`() throws {
        let child = try ChildProcess("/bin/sh", ["-c", "sleep 600 & echo $! >&2; wait"])
        var line = ""
        while !line.hasSuffix("\n") {
            let (end, errors) = try child.wait(milliseconds: 10)
            try #require(end == nil)
            line += String(decoding: errors, as: UTF8.self)
        }
        _ = consume child
        let sleeper = try #require(pid_t(line.dropLast()))
        // The child may be a zombie until its new parent has waited for it.
        while let status = ProcessFile.text("/proc/\(sleeper)/stat"), !status.contains(") Z ") { sched_yield() }
    }

    @Test func `a background process of a program keeps running, and does not delay the program's exit`() throws {
        let (end, errors) = try run("sleep 60 & echo $! >&2")
        #expect(end == .exited(status: 0))
        let sleeper = try #require(pid_t(errors.dropLast()))
        #expect(kill(sleeper, 0) == 0)
        kill(sleeper, SIGKILL)
    }

    @Test func `a program inherits only the standard descriptors`() throws {
        let (reading, writing) = (open("/dev/null", O_RDONLY), open("/dev/null", O_WRONLY))
        defer {
            close(reading)
            close(writing)
        }
        #expect(fcntl(writing, F_GETFD) == 0, "it is not close-on-exec")
        // Descriptor 3 belongs to the listing itself.
        #expect(try run("for f in /proc/self/fd/*; do echo ${f##*/} >&2; done").errors == "0\n1\n2\n3\n")
    }

    @Test func `a program starts with default signals`() throws {
        let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 >&2"
        let before = signal(SIGPIPE, SIG_IGN)
        defer { signal(SIGPIPE, before) }
        let masks = try run(script).errors.split(separator: "\n").compactMap { UInt64($0, radix: 16) }
        // 32 and 33 are glibc's own: posix_spawn leaves them ignored.
        #expect(masks.map { $0 & 0x7fff_ffff } == [0, 0])
    }

    @Test func `a file that is not a program is reported`() throws {
        #expect(throws: SystemError("run /nowhere", .noSuchFileOrDirectory, advice: "check the path")) {
            _ = try ChildProcess("/nowhere", [])
        }
        let advice = "make it a program that this user may run: chmod +x /etc/passwd"
        #expect(throws: SystemError("run /etc/passwd", .permissionDenied, advice: advice)) {
            _ = try ChildProcess("/etc/passwd", [])
        }
    }

    #if DEBUG
    @Test func `a program that cannot be watched is killed`() throws {
        // The initializer waits for the program, which meets the time limit only if the program was killed.
        #expect(throws: SystemError("watch /bin/sh", .tooManyOpenFiles)) {
            try ForcedErrno.with([.pidfdOpen: [.tooManyOpenFiles]]) {
                _ = try ChildProcess("/bin/sh", ["-c", "sleep 600"])
            }
        }
    }
    #endif
}
