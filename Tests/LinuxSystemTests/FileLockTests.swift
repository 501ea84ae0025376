import Glibc
import LinuxSystem
import OwnThread
import Synchronization
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FileLockTests {
    private let path: String

    init() throws {
        var template = Array("/tmp/pageferry-lock-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        try #require(descriptor >= 0)
        close(descriptor)
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// The error of an attempt to lock the file now; nil if it succeeds.
    private func refusal() -> SystemError? {
        do throws(SystemError) {
            try FileLock(path).release()
            return nil
        } catch {
            return error
        }
    }

    private var isHeld: SystemError {
        SystemError(
            "lock \(path)",
            .resourceTemporarilyUnavailable,
            advice: "it is in use; find its holder with: fuser -v \(path)"
        )
    }

    @Test func `a file has one holder at a time`() throws {
        defer { unlink(path) }
        let lock = try FileLock(path)
        #expect(refusal() == isHeld)
        lock.release()
        #expect(refusal() == nil)
        #expect(refusal() == nil)
    }

    @Test func `the lock stays when the file is opened and closed elsewhere in the process`() throws {
        defer { unlink(path) }
        let lock = try FileLock(path)
        close(open(path, O_RDWR))
        #expect(refusal() == isHeld)
        lock.release()
    }

    @Test func `the lock of a killed process is free`() async throws {
        defer { unlink(path) }
        await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
            let lock = try FileLock(path)
            #expect(throws: SystemError.self) { try FileLock(path).release() }
            kill(getpid(), SIGKILL)
            lock.release()
        }
        #expect(refusal() == nil)
    }

    @Test func `a program that is started while the lock is held does not keep it`() throws {
        defer { unlink(path) }
        let lock = try FileLock(path)
        let child = try ChildProcess("/bin/sh", ["-c", "exec sleep 60"])
        lock.release()
        #expect(refusal() == nil)
        #expect(try child.wait(milliseconds: 0).end == nil)
    }

    @Test func `the error names the process that holds a traditional lock`() throws {
        defer { unlink(path) }
        let script = """
            import fcntl, os, sys, time
            file = open(sys.argv[1], "r+")
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(2, b"%d\\n" % os.getpid())
            time.sleep(600)
            """
        let child = try ChildProcess("/usr/bin/env", ["python3", "-c", script, path])
        var line = ""
        while !line.hasSuffix("\n") {
            let (end, errors) = try child.wait(milliseconds: 10)
            line += String(decoding: errors, as: UTF8.self)
            try #require(end == nil, "\(line)")
        }
        let advice = "process \(line.dropLast()) holds it"
        #expect(refusal() == SystemError("lock \(path)", .resourceTemporarilyUnavailable, advice: advice))
        _ = consume child
        #expect(refusal() == nil)
    }

    @Test func `a path that is not a regular file is refused`() throws {
        defer { unlink(path) }
        #expect(throws: SystemError("lock /dev/null", .invalidArgument, advice: "give a regular file")) {
            try FileLock("/dev/null").release()
        }
        #expect(throws: SystemError("open /", .isDirectory, advice: "give a regular file")) {
            try FileLock("/").release()
        }
        #expect(throws: SystemError("open \(path)-gone", .noSuchFileOrDirectory, advice: "check the path")) {
            try FileLock("\(path)-gone").release()
        }
    }
}
