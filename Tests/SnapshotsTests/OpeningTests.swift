import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import SnapshotClient
import Snapshots
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct OpeningTests {
    @Test func `three hundred silent connections do not keep a guest from its pages`() async throws {
        let file = try SparseFile(byteCount: 100 * 4096)
        try file.write(pages: 0..<100)
        try await Serving.of(file.path) { serving in
            var idle: [SharedSocket] = []
            for _ in 0..<300 { idle.append(SharedSocket(try StreamSocket(connectingTo: serving.address))) }
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 100)])
            let urgent = try client.join(.urgent)
            let answer = try urgent.stream.ask(PageRun(region: 0, count: 1, first: 42))
            #expect(answer.bytes == SparseFile.content(ofPage: 42))
            withExtendedLifetime(idle) {}
        }
    }
}
