import Foundation
import Glibc
import LinuxSystem
import OwnThread
import PrivateMount
import RunLease
import Synchronization
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FailingStoreTests {
    private let site: Site

    init() throws { site = try Site() }

    /// The outcome of calls to a store on a small file system of its own.
    private struct Told: Sendable {
        var newest: LeaseRecord?
        var proposal: LeaseProposal?
        var error: RunLeaseError?

        init(_ store: FileRunLeaseStore, _ record: LeaseRecord) {
            do {
                newest = try store.newest()
                proposal = try store.propose(record)
            } catch {
                self.error = error
            }
        }
    }

    /// Runs `body` on a thread for which a file system in memory is mounted at the site.
    private func mounted<Value: Sendable>(
        _ options: String,
        _ body: @escaping @Sendable (_ path: String) throws -> Value
    ) throws -> Value {
        let path = site.path
        let outcome = Mutex<Result<Value, any Error>?>(nil)
        let thread = try JoinedThread(name: "mounted") {
            let result = Result {
                let mounted = private_mount(path, options)
                guard mounted == 0 else { throw Errno(rawValue: -mounted) }
                return try body(path)
            }
            outcome.withLock { $0 = result }
        }
        thread.join()
        return try #require(outcome.withLock { $0 }).get()
    }

    @Test func `a missing directory is reported, and nothing was written`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        try FileManager.default.moveItem(atPath: site.path, toPath: "\(site.path)-gone")
        defer { try? FileManager.default.moveItem(atPath: "\(site.path)-gone", toPath: site.path) }
        let error = RunLeaseError(
            "cannot open the directory \(site.path): No such file or directory; check the path and what is mounted there, or "
                + "create it: mkdir -p \(site.path)"
        )
        #expect(throws: error) { try store.newest() }
        #expect(throws: error) { try store.propose(.of(1, epoch: 2)) }
        #expect(throws: error) { try FileRunLeaseStore(directory: site.path) }
    }

    @Test func `a path through a file is reported, and nothing was written`() throws {
        try site.write("", to: "file")
        #expect(throws: RunLeaseError("cannot open the directory \(site.path)/file/x: Not a directory; name a folder"))
        {
            try FileRunLeaseStore(directory: "\(site.path)/file/x")
        }
        let store = try site.store()
        try site.write("", to: "vm")
        let reason =
            "cannot open the directory \(site.path)/vm: Not a directory; it is a file or a link; use another name"
        #expect(throws: RunLeaseError(reason)) {
            try store.propose(.of(1))
        }
    }

    @Test func `an empty mount point does not count as the store that was mounted there`() throws {
        let store = try site.store()
        #expect(try store.propose(.of(1)) == .won)
        try FileManager.default.moveItem(atPath: site.path, toPath: "\(site.path)-gone")
        try FileManager.default.createDirectory(atPath: site.path, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: "\(site.path)-gone") }
        let error = RunLeaseError("\(site.path) is not the run lease store \(store.name) any more; is it mounted?")
        #expect(throws: error) { try store.newest() }
        #expect(throws: error) { try store.propose(.of(1)) }
    }

    @Test(.enabled(if: geteuid() == 0, "only root mounts"))
    func `a store that is read-only can be read, and nothing is written`() throws {
        let told = try mounted("size=64k") { path in
            let store = try FileRunLeaseStore(directory: path)
            _ = try store.propose(.of(1))
            guard private_mount_read_only(path) == 0 else { throw Errno.permissionDenied }
            return (Told(store, .of(2)), Told(store, .of(1, epoch: 2)))
        }
        #expect(told.0.proposal == .lost(newest: .of(1)))
        #expect(told.1.newest == .of(1))
        #expect(told.1.error?.description.hasSuffix(": Read-only file system") == true)
        #expect(told.1.error?.mayHaveBeenWritten == false)
    }

    @Test(.enabled(if: geteuid() == 0, "only root mounts"), arguments: ["size=16k", "nr_inodes=6"])
    func `a full store is reported, and nothing was written`(options: String) throws {
        let (told, then) = try mounted(options) { path in
            let store = try FileRunLeaseStore(directory: path)
            _ = try store.propose(.of(1))
            let fillers = (0..<16).map { "\(path)/filler-\($0)" }
            for filler in fillers { try? Data(repeating: 1, count: 4096).write(to: URL(fileURLWithPath: filler)) }
            let told = Told(store, .of(1, epoch: 2))
            for filler in fillers { try? FileManager.default.removeItem(atPath: filler) }
            // Room may come late, since a child of another test may hold copies of open files until it calls exec.
            var then = Told(store, .of(2, epoch: 2))
            while then.error?.mayHaveBeenWritten == false { then = Told(store, .of(2, epoch: 2)) }
            return (told, then)
        }
        #expect(told.newest == .of(1))
        #expect(told.error?.description.hasSuffix(": No space left on device") == true)
        #expect(told.error?.mayHaveBeenWritten == false)
        #expect(then.newest == .of(1))
        #expect(then.proposal == .won)
    }

    #if DEBUG
    @Test(arguments: [Errno.ioError, .noSpace, .readOnlyFileSystem, .permissionDenied, .timedOut, .staleNFSFileHandle])
    func `whichever call fails, the error says whether the record may have been written`(errno: Errno) throws {
        let store = try site.store()
        let calls = try Calls.of { _ = try store.propose(.of(1), for: "counted") }
        let link = try #require(calls.firstIndex(of: .linkat))
        for place in calls.indices {
            let workload = "vm-\(place)"
            var error: RunLeaseError?
            do {
                let proposal = try Calls.at(place, { _ in errno }) { try store.propose(.of(1), for: workload) }
                #expect(proposal == .won)
            } catch let caught as RunLeaseError {
                error = caught
            }
            let isThere = try store.newest(workload) != nil
            switch place {
            case ..<link:
                #expect(!isThere && error?.mayHaveBeenWritten == false)
            case link:
                let isAnswer = [.noSpace, .readOnlyFileSystem, .permissionDenied].contains(errno)
                #expect(!isThere && error?.mayHaveBeenWritten == !isAnswer)
            default:
                #expect(isThere && error?.mayHaveBeenWritten == (calls[place] == .unlinkat ? nil : true))
            }
            #expect(error?.description.contains(errno.description) ?? true)
            #expect(try store.propose(.of(1), for: workload) == .won)
        }
    }

    /// Links the temporary file of a workload to another name, as a server does whose answer is lost.
    private static func link(as name: String, in path: String) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(path)/vm")) ?? []
        for temporary in names where temporary.hasPrefix(".new-") {
            Glibc.link("\(path)/vm/\(temporary)", "\(path)/vm/\(name)")
        }
    }

    @Test(arguments: [Errno.ioError, .timedOut, .fileExists, .readOnlyFileSystem])
    func `a link that was made counts, whatever error the call returns`(errno: Errno) throws {
        let (store, path) = (try site.store(), site.path)
        let proposal = try ForcedErrno.asking({ call in
            guard call == .linkat else { return nil }
            FailingStoreTests.link(as: "1", in: path)
            return errno
        }) {
            try store.propose(.of(1))
        }
        #expect(proposal == .won)
        #expect(try store.propose(.of(2)) == .lost(newest: .of(1)))
    }

    @Test func `a proposal whose link lands after a timeout wins when it is repeated`() throws {
        let (store, path) = (try site.store(), site.path)
        let error = #expect(throws: RunLeaseError.self) {
            try ForcedErrno.asking({ call in
                guard call == .linkat else { return nil }
                FailingStoreTests.link(as: "on-its-way", in: path)
                return .timedOut
            }) {
                try store.propose(.of(1))
            }
        }
        #expect(error == RunLeaseError("cannot make \(path)/vm/1: Connection timed out", mayHaveBeenWritten: true))
        #expect(try store.newest() == nil)
        try FileManager.default.moveItem(atPath: "\(path)/vm/on-its-way", toPath: "\(path)/vm/1")
        #expect(try store.propose(.of(1)) == .won)
    }

    @Test func `another owner's record that was made during the timeout has won`() throws {
        let store = try site.store()
        let proposal = try ForcedErrno.asking({ call in
            guard call == .linkat else { return nil }
            _ = try? store.propose(.of(2))
            return .timedOut
        }) {
            try store.propose(.of(1))
        }
        #expect(proposal == .lost(newest: .of(2)))
    }

    @Test func `a slow store answers late`() throws {
        let store = try site.store()
        let (began, delay) = (MonotonicClock.now(), 5_000_000 as UInt64)
        let calls = Mutex<UInt64>(0)
        let proposal = try ForcedErrno.asking({ _ in
            calls.withLock { $0 += 1 }
            usleep(UInt32(delay / 1000))
            return nil
        }) {
            try store.propose(.of(1))
        }
        #expect(proposal == .won)
        #expect(MonotonicClock.now() - began >= calls.withLock { $0 } * delay)
    }
    #endif
}
