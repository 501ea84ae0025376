import LinuxSystem
import OwnThread
import Synchronization
import SystemPackage
import Testing

#if DEBUG
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SystemErrorTests {
    @Test(arguments: [Errno.notPermitted, .permissionDenied])
    func `the error about a missing permission says how to get it`(errno: Errno) throws {
        for device in [Errno.permissionDenied, .notPermitted] {
            let error = try #require(throws: SystemError.self) {
                try ForcedErrno.with([.open: [device], .userfaultfd: [errno]]) { _ = try Userfaultfd() }
            }
            #expect(
                "\(error)" == "cannot open a userfaultfd: \(errno); "
                    + "run as root, or as a user with access: setfacl -m u:$USER:rw /dev/userfaultfd"
            )
        }
    }

    @Test func `the error about a missing device names another way`() throws {
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.open: [.noSuchFileOrDirectory], .userfaultfd: [.notPermitted]]) {
                _ = try Userfaultfd()
            }
        }
        #expect(
            "\(error)" == "cannot open a userfaultfd: Operation not permitted; "
                + "/dev/userfaultfd does not exist: run as root, or: sysctl -w vm.unprivileged_userfaultfd=1"
        )
    }

    @Test func `a failure of the device for another reason is reported as such`() throws {
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.open: [.tooManyOpenFiles]]) { _ = try Userfaultfd() }
        }
        #expect("\(error)" == "cannot open /dev/userfaultfd: Too many open files; raise `ulimit -n`")
    }

    @Test func `a file that can no longer be written is reported once`() throws {
        let told = Mutex<[SystemError]>([])
        let file = try OutputFile(path: "/dev/full") { error in told.withLock { $0.append(error) } }
        for _ in 0..<3 { file.write(0x61) }
        #expect(told.withLock { $0.map { "\($0)" } } == ["cannot write to /dev/full: No space left on device"])
    }

    @Test func `a slow reader of a pipe is not a failure of the file`() throws {
        let told = Mutex(0)
        let file = try OutputFile(path: "/dev/null") { _ in told.withLock { $0 += 1 } }
        ForcedErrno.with([.write: [.resourceTemporarilyUnavailable]]) { file.write(0x61) }
        #expect(told.withLock(\.self) == 0)
    }

    @Test func `without the device the system call is used`() throws {
        try ForcedErrno.with([.open: [.noSuchFileOrDirectory]]) { _ = try Userfaultfd() }
    }

    @Test func `the error about a missing kernel feature names the release that has it`() throws {
        let error = try #require(throws: SystemError.self) {
            _ = try Userfaultfd(features: Userfaultfd.Features(rawValue: 1 << 60))
        }
        #expect(error.errno == .invalidArgument)
        #expect("\(error)".contains("run Linux 6.1 or later"))
    }

    @Test func `an interrupted call is repeated`() throws {
        let region = try ForcedErrno.with([.mmap: [.interrupted, .interrupted], .madvise: [.interrupted]]) {
            try MemoryRegion(name: "ram", pageCount: 1)
        }
        #expect(region.byteCount == 4096)
    }

    @Test func `a failure is forced only in its own thread`() throws {
        try ForcedErrno.with([.mmap: [.noMemory]]) {
            let thread = try JoinedThread(name: "unforced") {
                #expect(throws: Never.self) { _ = try Mapping(anonymousBytes: 4096) }
            }
            thread.join()
            #expect(throws: SystemError("map 4096 bytes of memory", .noMemory, advice: "free memory or ask for less")) {
                _ = try Mapping(anonymousBytes: 4096)
            }
        }
        _ = try Mapping(anonymousBytes: 4096)
    }

    @Test(
        arguments: [
            (.connectionRefused, "check the port, and that the other side listens there"),
            (.networkUnreachable, "check the address, and the network between the hosts"),
            (.noRouteToHost, "check the address, and the network between the hosts"),
            (.nowInProgress, "check the address, the network and its firewalls, and that the agent's process"),
        ] as [(Errno, String)]
    )
    func `the error about a connection says what to check`(reason: Errno, advice: String) throws {
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.connect: [reason]]) {
                _ = try StreamSocket(connectingTo: .tcp(host: "127.0.0.1", port: 1))
            }
        }
        #expect("\(error)".contains(advice))
    }

    @Test func `the error about too many descriptors names the limit`() throws {
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.socket: [.tooManyOpenFiles]]) {
                _ = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
            }
        }
        #expect("\(error)" == "cannot make a socket: Too many open files; raise `ulimit -n`")
    }
}
#endif
