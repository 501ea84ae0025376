import LinuxSystem
import PageProtocol
import PageServer
import Synchronization
import Testing

@testable import PageFetcher

/// Several threads that serve faults, each on a lane of its own.
@Suite(.timeLimit(.minutes(1)))
struct FaultThreadsTests {
    @Test(arguments: [Prefetch.none, .streams()])
    func `fetch every page for many readers, beside the push`(prefetch: Prefetch) throws {
        let ferry = try Ferry(pageCounts: [3000, 1000], prefetch: prefetch, faultThreads: 3)
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        for reader in 0..<8 {
            try ferry.touch(region: 0, Array(stride(from: reader, to: 3000, by: 8)).shuffled())
            try ferry.touch(region: 1, Array(0..<1000).shuffled())
        }
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.waiting == 0)
        #expect(progress.demand + progress.prefetched + progress.pushed + progress.zero == ferry.pagesTotal)
    }

    @Test func `request each page once, on the lane of the thread that read its fault`() throws {
        let ferry = try Ferry(pageCounts: [4000], zeroEvery: 1, faultThreads: 2)
        defer { ferry.end() }
        let connection = try Connection(urgentLanes: 2)
        try ferry.destination.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulk)
        ferry.destination.waitUntilTurned()
        let asked = Asked()
        var answering: [Handover<JoinedThread>] = []
        for lane in 0..<2 {
            let socket = connection.source.urgent[lane]
            let thread = try JoinedThread(name: "answer") { Self.answer(on: socket, lane, asked) }
            answering.append(Handover(thread))
        }
        for reader in 0..<16 { try ferry.touch(region: 0, Array(stride(from: reader, to: 4000, by: 16))) }
        ferry.waitForReaders()
        for socket in connection.source.urgent { socket.stream.shutdown() }
        for thread in answering { thread.take()?.join() }
        let pages = asked.pages.withLock { $0 }
        #expect(pages[0].count + pages[1].count == 4000)
        #expect(Set(pages[0]).union(pages[1]).count == 4000)
        #expect(!pages[0].isEmpty && !pages[1].isEmpty)
    }

    private final class Asked: Sendable {
        let pages = Mutex<[[UInt64]]>([[], []])
    }

    private static func answer(on socket: SharedSocket, _ lane: Int, _ asked: Asked) {
        while let frame = try? socket.stream.receiveFrame() {
            asked.pages.withLock { $0[lane].append(frame.run.first) }
            try? socket.stream.send(.zeroes(frame.run))
        }
    }

    @Test func `request every page with a waiting reader again on new lanes, whichever thread read its fault`() throws {
        let ferry = try Ferry(pageCounts: [600], faultThreads: 3)
        defer { ferry.end() }
        let lost = try Connection(urgentLanes: 3)
        let lanes = try EventLog<PageFetcher.LaneEvent>()
        try ferry.destination.attach(urgent: lost.destination.urgent, bulk: lost.destination.bulk) { lanes.add($0) }
        // Free threads request these pages on lanes on which no one answers.
        for reader in 0..<12 { try ferry.touch(region: 0, Array(stride(from: reader, to: 300, by: 12))) }
        let asked = try EventLog<LaneFrame>()
        let readers = ThreadGroup()
        defer { readers.join() }
        for socket in lost.source.urgent {
            try readers.run("asked") { while let frame = try? socket.stream.receiveFrame() { asked.add(frame) } }
        }
        // The last thread that turns to new lanes repeats all requests, so that some pages may be requested twice.
        #expect(asked.first { _ in Set(asked.all.map(\.run.first)).count == 12 ? true : nil } == true)
        lost.source.urgent[2].stream.shutdown()
        #expect(lanes.loss()?.lane == .urgent)
        ferry.destination.detach()
        // More faults, while there are no lanes.
        for reader in 0..<12 { try ferry.touch(region: 0, Array(stride(from: 300 + reader, to: 600, by: 12))) }
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        source.freeze()
        try ferry.connect(source)
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(ferry.destination.progress.pagesResident == 600)
        #expect(ferry.wrongPages() == [])
    }
}
