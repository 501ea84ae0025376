import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import SnapshotClient
import Snapshots
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct RenewedFileTests {
    private static let pageCount = 2000
    private static let slices = [SnapshotSlice(offset: 0, pageSize: 4096, pageCount: UInt64(pageCount))]
    /// A page that the spread digest does not cover.
    private static let uncovered = 701

    private func makeFile(in folder: String = "/tmp") throws -> SparseFile {
        let file = try SparseFile(in: folder, byteCount: Self.pageCount * 4096)
        try file.write(pages: 0..<Self.pageCount)
        return file
    }

    /// A change of a file's times.
    enum Touch: CaseIterable {
        case now, past, mode, name, link

        func happen(to path: String) throws {
            let files = FileManager.default
            switch self {
            case .now: try #require(utimes(path, nil) == 0)
            case .past: try files.setAttributes([.modificationDate: Date.distantPast], ofItemAtPath: path)
            case .mode: try files.setAttributes([.posixPermissions: 0o400], ofItemAtPath: path)
            case .name:
                try files.moveItem(atPath: path, toPath: "\(path)-moved")
                try files.moveItem(atPath: "\(path)-moved", toPath: path)
            case .link:
                try files.linkItem(atPath: path, toPath: "\(path)-link")
                try files.removeItem(atPath: "\(path)-link")
            }
        }
    }

    /// A change of a page's content.
    private func change(_ path: String, page: Int, to content: [UInt8] = [0]) throws {
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.seek(toOffset: UInt64(page * 4096))
        try handle.write(contentsOf: content)
        try handle.close()
    }

    /// The times of a file that utimensat(2) can set.
    private func times(of path: String) throws -> [timespec] {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return [status.st_atim, status.st_mtim]
    }

    private func ask(_ socket: SharedSocket, _ page: Int = 42) throws -> [UInt8] {
        try socket.stream.ask(PageRun(region: 0, count: 1, first: UInt64(page))).bytes
    }

    @Test(arguments: Touch.allCases, ["/tmp", "/dev/shm"])
    func `a file whose times alone change is served on, and clients are told the new times`(
        touch: Touch,
        folder: String
    ) async throws {
        let file = try makeFile(in: folder)
        try file.finishWriting()
        let ended = try await Serving.of(file.path) { serving in
            let (asking, idle) = (try SnapshotClient(to: serving.address), try SnapshotClient(to: serving.address))
            try idle.take(Self.slices)
            let before = try asking.take(Self.slices)
            let (urgent, bulk) = (try asking.join(.urgent), try asking.join(.bulk))
            #expect(try ask(urgent) == SparseFile.content(ofPage: 42))
            try touch.happen(to: file.path)
            for page in [43, 1999] {
                for lane in [urgent, bulk] { #expect(try ask(lane, page) == SparseFile.content(ofPage: page)) }
            }
            for client in [asking, idle] {
                guard case .snapshot(let after) = try client.next() else {
                    Issue.record("no new identity")
                    continue
                }
                #expect(after != before && before.matches(after) == .same)
            }
            let late = try SnapshotClient(to: serving.address)
            #expect(try before.matches(late.take(Self.slices)) == .same)
        }
        #expect(ended == nil)
    }

    @Test func `a client that connects after the times have changed is served`() async throws {
        let file = try makeFile()
        try file.finishWriting()
        let ended = try await Serving.of(file.path) { serving in
            try Touch.now.happen(to: file.path)
            let client = try SnapshotClient(to: serving.address)
            try client.take(Self.slices)
            #expect(try ask(client.join(.urgent)) == SparseFile.content(ofPage: 42))
        }
        #expect(ended == nil)
    }

    @Test(arguments: ["/tmp", "/dev/shm"], [true, false])
    func `a file that is written and gets its modification time back is served no longer`(
        folder: String,
        isProvedFully: Bool
    ) async throws {
        let file = try makeFile(in: folder)
        try file.finishWriting()
        let ended = try await Serving.of(file.path, isProvedFully: isProvedFully) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take(Self.slices)
            let urgent = try client.join(.urgent)
            #expect(try ask(urgent) == SparseFile.content(ofPage: 42))
            let times = try times(of: file.path)
            try change(file.path, page: Self.uncovered)
            try #require(utimensat(AT_FDCWD, file.path, times, 0) == 0)
            try urgent.stream.send(.pageRequest(PageRun(region: 0, count: 1, first: UInt64(Self.uncovered))))
            #expect(try urgent.stream.receiveFrame() == nil)
            let reason = "\(file.path) was modified; serve a file that nobody changes"
            #expect(try client.next() == .refused(reason: reason))
        }
        #expect(ended?.description.contains("was modified") == true)
    }

    @Test func `a file that is written through a mapping is served no longer, however few pages change`() async throws {
        let file = try makeFile()
        try file.finishWriting()
        let ended = try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take(Self.slices)
            let urgent = try client.join(.urgent)
            let mapping = try Mapping(sharingFileAt: file.path)
            mapping.base.storeBytes(of: 0, toByteOffset: Self.uncovered * 4096, as: UInt64.self)
            // The kernel notes the time of the write when it writes the page to the disk, or here.
            try #require(msync(mapping.base, mapping.byteCount, MS_SYNC) == 0)
            try urgent.stream.send(.pageRequest(PageRun(region: 0, count: 1, first: UInt64(Self.uncovered))))
            #expect(try urgent.stream.receiveFrame() == nil)
        }
        #expect(ended?.description.contains("was modified") == true)
    }

    @Test func `a file that was proved fully is served on if its content was only written again`() async throws {
        let file = try makeFile()
        // The file stays open for writing, so that the kernel proves nothing.
        let ended = try await Serving.of(file.path, isProvedFully: true) { serving in
            let client = try SnapshotClient(to: serving.address)
            let before = try client.take(Self.slices)
            let urgent = try client.join(.urgent)
            try file.write(pages: [Self.uncovered])
            #expect(try ask(urgent, Self.uncovered) == SparseFile.content(ofPage: Self.uncovered))
            guard case .snapshot(let after) = try client.next() else { throw ServerSays(reason: "no new identity") }
            #expect(before.matches(after) == .same)
        }
        #expect(ended == nil)
    }

    @Test func `other sessions open and end while the full digest of a large file is made`() async throws {
        let file = try SparseFile(in: "/dev/shm", byteCount: 512 << 20)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file.path))
        let block = [UInt8](repeating: 7, count: 1 << 20)
        for _ in 0..<512 { try handle.write(contentsOf: block) }
        // The file stays open for writing, so that only the digest proves its content.
        let ended = try await Serving.of(file.path, isProvedFully: true) { serving in
            let (leaving, waiting) = (try SnapshotClient(to: serving.address), try SnapshotClient(to: serving.address))
            try leaving.take(Self.slices)
            try Touch.now.happen(to: file.path)
            try waiting.say(.slices(Self.slices))
            // The message has been read once the answer to the next one has come.
            try waiting.say(.ping(0))
            #expect(try waiting.next() == .pong(0))
            _ = try SnapshotClient(to: serving.address)
            try leaving.say(.bye)
            #expect(leaving.untilHangUp() == nil)
            let hasWaited = try !waiting.control.waitToReceive(before: MonotonicClock.now())
            #expect(hasWaited, "the proof was made before the other sessions were opened and ended")
            guard case .snapshot = try waiting.next() else { throw ServerSays(reason: "no identity") }
            #expect(try ask(waiting.join(.urgent)) == Array(block[..<4096]))
        }
        #expect(ended == nil)
        withExtendedLifetime(handle) {}
    }

    @Test func `a file that another one replaces stays the one that is served`() async throws {
        let file = try makeFile()
        try file.finishWriting()
        let copy = try file.copy()
        try change(copy, page: 42, to: [1, 2, 3])
        let ended = try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take(Self.slices)
            let urgent = try client.join(.urgent)
            try #require(rename(copy, file.path) == 0)
            #expect(try ask(urgent) == SparseFile.content(ofPage: 42))
        }
        #expect(ended == nil)
        #expect(try file.bytes(42 * 4096..<42 * 4096 + 3) == [1, 2, 3])
    }

    /// The identity of a file as a new server of it tells.
    private func identity(of path: String, isProvedFully: Bool = false) throws -> SnapshotIdentity {
        try SnapshotFile(path, isProvedFully: isProvedFully).identity
    }

    @Test(arguments: [true, false])
    func `a file that was touched between two servers is the same if it was proved fully`(isProvedFully: Bool) throws {
        let file = try makeFile()
        try file.finishWriting()
        let before = try identity(of: file.path, isProvedFully: isProvedFully)
        #expect(try before.matches(identity(of: file.path)) == .same)
        try Touch.now.happen(to: file.path)
        let after = try identity(of: file.path, isProvedFully: isProvedFully)
        #expect(before.matches(after) == (isProvedFully ? .same : .unproven))
    }

    @Test(arguments: [true, false])
    func `a copy is the same snapshot if both were proved fully`(isProvedFully: Bool) throws {
        let file = try makeFile()
        try file.finishWriting()
        let before = try identity(of: file.path, isProvedFully: isProvedFully)
        let copy = try identity(of: file.copy(), isProvedFully: isProvedFully)
        #expect(before.matches(copy) == (isProvedFully ? .same : .unproven))
    }

    @Test(arguments: [0, 42, uncovered, pageCount - 1], [true, false])
    func `another file of the same size and modification time is never the same`(page: Int, isProvedFully: Bool) throws
    {
        let file = try makeFile()
        try file.finishWriting()
        let before = try identity(of: file.path, isProvedFully: isProvedFully)
        let copy = try file.copy()
        try change(copy, page: page)
        try #require(utimensat(AT_FDCWD, copy, times(of: file.path), 0) == 0)
        let match = before.matches(try identity(of: copy, isProvedFully: isProvedFully))
        #expect(match == (page == Self.uncovered && !isProvedFully ? .unproven : .other))
    }

    @Test func `a snapshot that is taken again into the same file is never the same`() throws {
        let file = try makeFile()
        try file.finishWriting()
        let before = try identity(of: file.path)
        try change(file.path, page: Self.uncovered)
        #expect(try before.matches(identity(of: file.path)) == .unproven)
    }
}
