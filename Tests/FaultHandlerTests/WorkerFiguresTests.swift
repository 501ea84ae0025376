import LinuxSystem
import PageFetcher
import PageProtocol
import Telemetry
import Testing

@testable import FaultHandler

@Suite("The figures of a restored guest")
struct WorkerFiguresTests {
    private func makeTask(recording: Bool = false, giveUp: Int = 60) throws -> GuestTask {
        let record = recording ? #""record": "/r","# : ""
        let task = """
            {"process": 7, "socket": "unix:/s", "keepsSocketOpen": false, "hasConnection": true,
             "regions": [{"address": 4096, "pageSize": 4096, "pageCount": 9, "offset": 0}],
             "settings": {"source": "127.0.0.1:1", "giveUpSeconds": \(giveUp), "onLost": "kill", \(record)
                          "peerTimeoutSeconds": 1, "faultThreads": 1, "recordMilliseconds": 1000}}
            """
        return try GuestTask(reading: Array(task.utf8))
    }

    private func makeView(recording: Bool = false, giveUp: Int = 60) throws -> GuestView {
        let task = try makeTask(recording: recording, giveUp: giveUp)
        let file = try MemoryFile(name: "session", byteCount: SessionMemory.byteCount(for: task))
        return GuestView(task: task, memory: try SessionMemory(file, of: task))
    }

    private func figures(demand: Int, microseconds: [UInt64]) -> WorkerFigures {
        var progress = PageFetcher.Progress()
        (progress.demand, progress.pushed, progress.zero, progress.pagesResident) = (demand, 2, 1, demand + 3)
        let service = LatencyRecorder()
        for time in microseconds { service.record(nanoseconds: time * 1000) }
        return WorkerFigures().adding(progress, [service])
    }

    @Test("continue from those of the worker before, through the guest's state")
    func continued() throws {
        let view = try makeView()
        view.memory.figures = figures(demand: 3, microseconds: [20, 40, 80])
        var progress = PageFetcher.Progress()
        (progress.demand, progress.prefetched, progress.pagesResident, progress.waiting) = (1, 1, 8, 2)
        let service = LatencyRecorder()
        service.record(nanoseconds: 100_000)
        var second = view.memory.figures.adding(progress, [service])
        second.state = GuestFate.State.linked.code
        view.memory.figures = second
        view.memory.workers = 2
        let live = view.live(as: .process(7))
        #expect((live.pid, live.state, live.policy, live.restarts) == (7, "linked", "kill", 1))
        #expect((live.total, live.resident, live.demand, live.ahead, live.waiting) == (9, 8, 4, 4, 2))
        #expect(live.served == 4)
        #expect((235.0...245).contains(live.serviceTotal))
    }

    @Test("estimate percentiles within a power of two")
    func percentiles() {
        let figures = figures(demand: 100, microseconds: [UInt64](repeating: 20, count: 99) + [3000])
        #expect((16.0...32).contains(figures.percentile(0.5)))
        #expect((16.0...32).contains(figures.percentile(0.99)))
        #expect((2048.0...4096).contains(figures.percentile(1)))
        #expect(WorkerFigures().percentile(0.5) == 0)
    }

    @Test("are no trap, whatever the guest's state holds")
    func anything() throws {
        let task = try makeTask()
        let file = try MemoryFile(name: "session", byteCount: SessionMemory.byteCount(for: task))
        let view = GuestView(task: task, memory: try SessionMemory(file, of: task))
        let shared = try Mapping(sharing: file)
        for value in [UInt64.max, 1 << 63, 1 << 62, 5] {
            for word in 0..<WorkerFigures.wordCount {
                shared.base.storeBytes(of: value, toByteOffset: 1024 + word * 8, as: UInt64.self)
            }
            for place in [3, 5, 7, 11, 12, 13] {
                shared.base.storeBytes(of: value, toByteOffset: place * 8, as: UInt64.self)
            }
            #expect(view.live(as: .process(7)).total == 9)
            #expect(view.ended(.done).report.pages.total == 9)
            _ = view.memory.figures.adding(PageFetcher.Progress(), [])
        }
    }

    @Test("name every state of a guest")
    func states() {
        let all: [GuestFate.State] = [
            .unserved, .unlinked(since: 0, failure: nil), .linked, .held(since: 0, failure: nil), .hangingUp,
            .returning,
            .complete, .killed, .ended,
        ]
        #expect(
            all.map { GuestFate.State.names[$0.code] } == [
                "unserved", "unlinked", "linked", "held", "held", "held", "complete", "killed", "ended",
            ]
        )
    }

    @Test("say when the policy acts on a guest that waits")
    func countdown() throws {
        let view = try makeView(giveUp: 60)
        #expect(view.live(as: .process(7)).policyCountdown == nil)
        var figures = WorkerFigures()
        let now = MonotonicClock.now()
        (figures.state, figures.waiting, figures.waitingSince) = (1, 1, now - 500_000_000)
        view.memory.figures = figures
        #expect(view.live(as: .process(7)).policyCountdown == nil)
        // A server that was lost before the page was touched counts from its loss.
        view.memory.lostSince = now - 20_000_000_000
        #expect((38.0...40).contains(try #require(view.live(as: .process(7)).policyCountdown)))
        #expect((0.4e6...5e6).contains(view.live(as: .process(7)).oldest))
        figures.state = GuestFate.State.held(since: 0, failure: nil).code
        view.memory.figures = figures
        #expect(view.live(as: .process(7)).policyCountdown == nil)
    }

    @Test("show the order to fetch the rest, which a guest whose touches are recorded refuses")
    func order() throws {
        let view = try makeView()
        #expect(view.live(as: .process(7)).fill == nil)
        try view.order(FillRate(bytesPerSecond: 4096))
        #expect(view.live(as: .process(7)).fill == 4096)
        try view.order(.unlimited)
        #expect(view.live(as: .process(7)).fill == 0)
        #expect(view.memory.fill == .unlimited)
        let recorded = try makeView(recording: true)
        #expect(throws: FillRefused.self) { try recorded.order(.unlimited) }
        recorded.memory.isRecorded = true
        try recorded.order(.unlimited)
    }

    @Test("are not looked for under the number of a process that no guest has")
    func unknown() {
        for guest in [.process(7), .outside(1)] as [LiveGuest.ID] {
            #expect(throws: FillRefused.self) { try GuestRoster().fill(guest, at: .unlimited) }
        }
        #expect(GuestRoster().guests.isEmpty)
    }
}
