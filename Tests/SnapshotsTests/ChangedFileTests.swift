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

    @Test func `a page that is being written is never sent half`() async throws {
        let file = try SparseFile(byteCount: 64 * 4096)
        try file.write(pages: 0..<64)
        let before = try file.bytes(0..<64 * 4096)
        let isWriting = try EventDescriptor()
        let ended = try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 64)])
            let urgent = try client.join(.urgent)
            let writer = try JoinedThread(name: "write") {
                isWriting.wait()
                try? file.write(pages: (0..<64).reversed(), shiftedBy: 1000)
            }
            var rounds = 0
            while let answer = try? urgent.stream.ask(PageRun(region: 0, count: 64, first: 0)) {
                #expect(answer.bytes == before)
                rounds += 1
                if rounds == 20 { isWriting.raise() }
            }
            isWriting.raise()
            writer.join()
            #expect(rounds >= 20)
        }
        #expect(ended != nil)
    }
}
