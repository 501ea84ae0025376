import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import Testing

@testable import PageServer

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SnapshotLaneTests {
    private func expectPage(_ page: UInt64, from lane: SharedSocket) throws {
        let frame = try lane.stream.receiveFrame()
        #expect(frame?.kind == .pages && frame?.run == PageRun(region: 0, count: 1, first: page))
        var body = [UInt8](repeating: 0, count: 4096)
        #expect(try body.withUnsafeMutableBytes { try lane.stream.receive(exactly: $0) } == 4096)
        #expect(body == [UInt8](repeating: UInt8(page) + 1, count: 4096))
    }

    @Test func `while no second thread can be started, one thread serves all lanes in turn`() throws {
        let path = "/tmp/pft-lane-\(UInt64.random(in: 0...UInt64.max))"
        let pages = (0..<8).flatMap { [UInt8](repeating: $0 + 1, count: 4096) }
        try Data(pages).write(to: URL(fileURLWithPath: path))
        defer { unlink(path) }
        let slices = [SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 8)]
        let memory = try SnapshotMemory(file: MappedFile(path), slices: slices, renew: {})
        // A group that does not grow serves as one whose next thread the kernel refuses.
        let threads = try ConnectionThreads(name: "serve", pace: .usual, isGrowing: false)
        defer { threads.stop() }
        var lanes: [SnapshotLane] = []
        var peers: [SharedSocket] = []
        for _ in 0..<3 {
            let (near, far) = try StreamSocket.pair()
            let lane = try SnapshotLane(near, .urgent, memory: memory, threads: threads, polling: .zero) { _ in }
            try lane.begin()
            lanes.append(lane)
            peers.append(far)
        }
        defer {
            for lane in lanes {
                lane.shutdown()
                lane.end()
            }
        }
        // Part of a request on one lane holds up no other.
        try peers[2].stream.send([3, 0])
        for page in 0..<UInt64(8) {
            for peer in peers[..<2] {
                try peer.stream.send(.pageRequest(PageRun(region: 0, count: 1, first: page)))
                try expectPage(page, from: peer)
            }
        }
    }
}
