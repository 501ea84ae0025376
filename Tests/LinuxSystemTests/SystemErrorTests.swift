import LinuxSystem
import OwnThread
import SystemPackage
import Testing

#if DEBUG
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SystemErrorTests {
    @Test(arguments: [Errno.notPermitted, .permissionDenied])
    func `without permission the reader is told how to get it`(errno: Errno) throws {
        for device in [Errno.permissionDenied, .notPermitted, .noSuchFileOrDirectory] {
            let error = try #require(throws: SystemError.self) {
                try ForcedErrno.with([.open: [device], .userfaultfd: [errno]]) { _ = try Userfaultfd() }
            }
            #expect(
                "\(error)" == "cannot open a userfaultfd: \(errno); "
                    + "run as root, or as a user with access: setfacl -m u:$USER:rw /dev/userfaultfd"
            )
        }
    }

    @Test func `without the device the system call is used`() throws {
        try ForcedErrno.with([.open: [.noSuchFileOrDirectory]]) { _ = try Userfaultfd() }
    }

    @Test func `a kernel that lacks a feature is told`() throws {
        let error = try #require(throws: SystemError.self) {
            _ = try Userfaultfd(features: Userfaultfd.Features(rawValue: 1 << 60))
        }
        #expect(error.errno == .invalidArgument)
        #expect("\(error)".contains("run Linux 6.1 or later"))
    }

    @Test func `an interrupted call is made again`() throws {
        let region = try ForcedErrno.with([.mmap: [.interrupted, .interrupted], .madvise: [.interrupted]]) {
            try MemoryRegion(name: "ram", pageCount: 1)
        }
        #expect(region.byteCount == 4096)
    }

    @Test func `a failure is forced in its own thread only`() throws {
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

    @Test func `without descriptors left the reader is told the limit`() throws {
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.socket: [.tooManyOpenFiles]]) {
                _ = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
            }
        }
        #expect("\(error)" == "cannot make a socket: Too many open files; raise `ulimit -n`")
    }
}
#endif
