import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import SnapshotClient
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ChangedFileTests {
    /// What may happen to a file.
    enum Change: CaseIterable {
        case oneByteWritten, touched, longer, shorter, emptied

        func happen(to file: SparseFile) throws {
            switch self {
            case .oneByteWritten:
                let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file.path))
                try handle.seek(toOffset: 10)
                try handle.write(contentsOf: [1])
            case .touched:
                try FileManager.default.setAttributes([.modificationDate: Date.distantPast], ofItemAtPath: file.path)
            case .longer: try file.resize(to: 200 * 4096)
            case .shorter: try file.resize(to: 50 * 4096)
            case .emptied: try file.resize(to: 0)
            }
        }

        var words: String {
            switch self {
            case .oneByteWritten, .touched: "was modified"
            case .longer: "has changed its size from 409600 to 819200 bytes"
            case .shorter: "has changed its size from 409600 to 204800 bytes"
            case .emptied: "has changed its size from 409600 to 0 bytes"
            }
        }
    }

    private static let slices = [SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 100)]

    @Test(arguments: Change.allCases, ["/tmp", "/dev/shm"])
    func `a file that changes ends the service, told to every client, with no page of it`(
        change: Change,
        folder: String
    ) async throws {
        let file = try SparseFile(in: folder, byteCount: 100 * 4096)
        try file.write(pages: 0..<100)
        let ended = try await Serving.of(file.path) { serving in
            let (asking, idle) = (try SnapshotClient(to: serving.address), try SnapshotClient(to: serving.address))
            try idle.take(Self.slices)
            try asking.take(Self.slices)
            let urgent = try asking.join(.urgent)
            #expect(try urgent.stream.ask(PageRun(region: 0, count: 1, first: 1)).zeroPages == 0)
            try change.happen(to: file)
            // Of a shorter file, one that is gone and was not touched.
            try urgent.stream.send(.pageRequest(PageRun(region: 0, count: 5, first: 90)))
            #expect(try urgent.stream.receiveFrame() == nil)
            for client in [asking, idle] {
                #expect(client.untilHangUp() == "\(file.path) \(change.words); serve a file that nobody changes")
            }
        }
        #expect(ended?.description.contains(change.words) == true)
    }

    @Test func `a file that was truncated and has its size again is not served`() async throws {
        let file = try SparseFile(byteCount: 100 * 4096)
        try file.write(pages: 0..<100)
        let ended = try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take(Self.slices)
            let bulk = try client.join(.bulk)
            try file.resize(to: 0)
            try file.resize(to: 100 * 4096)
            try bulk.stream.send(.pageRequest(PageRun(region: 0, count: 100, first: 0)))
            #expect(try bulk.stream.receiveFrame() == nil)
        }
        #expect(ended?.description.contains("was modified") == true)
    }

    @Test func `a client that comes to a file that has changed is told`() async throws {
        let file = try SparseFile(byteCount: 100 * 4096)
        let ended = try await Serving.of(file.path) { serving in
            try file.write(pages: [3])
            let client = try SnapshotClient(to: serving.address)
            let words = "\(file.path) was modified; serve a file that nobody changes"
            #expect(throws: ServerSays(reason: words)) { try client.take(Self.slices) }
        }
        #expect(ended != nil)
    }

    @Test func `what is written while an answer is on its way is in none of its pages`() async throws {
        let file = try SparseFile(byteCount: 256 * 4096)
        try file.write(pages: 0..<256)
        let ended = try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 256)])
            let urgent = try client.join(.urgent)
            let run = PageRun(region: 0, count: 256, first: 0)
            #expect(try urgent.stream.ask(run).zeroPages == 0)
            // More than the sockets' buffers take.
            for _ in 0..<64 { try urgent.stream.send(.pageRequest(run)) }
            let deadline = MonotonicClock.now() + 10_000_000_000
            while try !Self.someServerWaitsToSend(), MonotonicClock.now() < deadline {}
            try file.write(pages: 0..<256, shiftedBy: 1000)
            var wrong = 0
            var body = [UInt8](repeating: 0, count: 4096)
            let contents = (0..<256).map(SparseFile.content)
            // Requests that were not read may break the connection.
            while let frame = try? urgent.stream.receiveFrame() {
                for page in Int(frame.run.first)..<Int(frame.run.first) + Int(frame.run.count) {
                    let count = body.withUnsafeMutableBytes { try? urgent.stream.receive(exactly: $0) }
                    guard count == 4096 else { break }
                    if body != contents[page] { wrong += 1 }
                }
            }
            #expect(wrong == 0)
        }
        #expect(ended != nil)
    }

    /// Whether a thread that answers requests waits in `sendmsg`, which has the number 46.
    private static func someServerWaitsToSend() throws -> Bool {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").contains { thread in
            // A thread that has ended meanwhile has no files.
            let name = try? String(contentsOfFile: "/proc/self/task/\(thread)/comm", encoding: .utf8)
            let call = try? String(contentsOfFile: "/proc/self/task/\(thread)/syscall", encoding: .utf8)
            return name == "urgent-serve\n" && call?.hasPrefix("46 ") == true
        }
    }
}
