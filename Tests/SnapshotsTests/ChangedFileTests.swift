import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import SnapshotClient
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ChangedFileTests {
    /// A change of a served file that a writer has open.
    enum Change: CaseIterable {
        case oneByteWritten, touchedByAWriter, longer, shorter, emptied

        func happen(to file: SparseFile) throws {
            switch self {
            case .oneByteWritten:
                let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file.path))
                try handle.seek(toOffset: 10)
                try handle.write(contentsOf: [1])
            case .touchedByAWriter:
                try FileManager.default.setAttributes([.modificationDate: Date.distantPast], ofItemAtPath: file.path)
            case .longer: try file.resize(to: 200 * 4096)
            case .shorter: try file.resize(to: 50 * 4096)
            case .emptied: try file.resize(to: 0)
            }
        }

        var words: String {
            switch self {
            case .oneByteWritten, .touchedByAWriter: "was modified"
            case .longer: "has changed its size from 409600 to 819200 bytes"
            case .shorter: "has changed its size from 409600 to 204800 bytes"
            case .emptied: "has changed its size from 409600 to 0 bytes"
            }
        }
    }

    private static let slices = [SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 100)]

    @Test(arguments: Change.allCases, ["/tmp", "/dev/shm"])
    func `a changed file ends the service for every client, and no page of it is sent`(
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
            // In a shorter file, these pages are gone and were never read.
            try urgent.stream.send(.pageRequest(PageRun(region: 0, count: 5, first: 90)))
            #expect(try urgent.stream.receiveFrame() == nil)
            for client in [asking, idle] {
                let reason = "\(file.path) \(change.words); serve a file that nobody changes"
                #expect(try client.next() == .refused(reason: reason))
                #expect(client.untilHangUp() == nil)
            }
        }
        #expect(ended?.description.contains(change.words) == true)
    }

    @Test func `a file that was truncated and extended again is not served`() async throws {
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

    @Test func `a client that connects after a change of the file gets the reason`() async throws {
        let file = try SparseFile(byteCount: 100 * 4096)
        let ended = try await Serving.of(file.path) { serving in
            try file.write(pages: [3])
            let client = try SnapshotClient(to: serving.address)
            let words = "\(file.path) was modified; serve a file that nobody changes"
            #expect(throws: ServerSays(reason: words)) { try client.take(Self.slices) }
        }
        #expect(ended != nil)
    }

    @Test func `a write to the file during an answer appears in no page of that answer`() async throws {
        let file = try SparseFile(byteCount: 256 * 4096)
        try file.write(pages: 0..<256)
        let ended = try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 256)])
            let urgent = try client.join(.urgent)
            let run = PageRun(region: 0, count: 256, first: 0)
            #expect(try urgent.stream.ask(run).zeroPages == 0)
            // More answers than the sockets' buffers hold.
            for _ in 0..<64 { try urgent.stream.send(.pageRequest(run)) }
            let deadline = MonotonicClock.now() + 10_000_000_000
            while try !Self.someServerWaitsToSend(), MonotonicClock.now() < deadline {}
            try file.write(pages: 0..<256, shiftedBy: 1000)
            var wrong = 0
            var body = [UInt8](repeating: 0, count: 4096)
            let contents = (0..<256).map(SparseFile.content)
            // Requests that the server has not read may reset the connection.
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

    /// Whether a thread that answers requests waits in `sendmsg`, whose number is 46.
    private static func someServerWaitsToSend() throws -> Bool {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").contains { thread in
            // A thread that has exited meanwhile has no files.
            let name = try? String(contentsOfFile: "/proc/self/task/\(thread)/comm", encoding: .utf8)
            let call = try? String(contentsOfFile: "/proc/self/task/\(thread)/syscall", encoding: .utf8)
            return name == "urgent-serve\n" && call?.hasPrefix("46 ") == true
        }
    }
}
