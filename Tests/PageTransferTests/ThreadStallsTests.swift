import LinuxSystem
import PageServer
import Telemetry
import Testing

@testable import PageFetcher

/// How long each thread has waited for its pages.
@Suite(.timeLimit(.minutes(1)))
struct ThreadStallsTests {
    private func wait(until isTrue: () -> Bool) throws {
        let deadline = MonotonicClock.now() + 30_000_000_000
        while !isTrue() {
            try #require(MonotonicClock.now() < deadline)
            MonotonicClock.sleep(nanoseconds: 1_000_000)
        }
    }

    @Test func `belong to the threads that the kernel names, also two at one page`() throws {
        let ferry = try Ferry(pageCounts: [8], zeroEvery: 9)
        defer { ferry.end() }
        ferry.destination.countStalls()
        let readers = ThreadGroup()
        let begin = MonotonicClock.now()
        for (reader, page) in [3, 3, 5].enumerated() {
            try readers.run("stall-\(reader)") {
                _ = ferry.arriving[0].page(page).load(as: UInt8.self)
            }
        }
        try wait { ferry.destination.threadStalls.filter { $0.open != nil }.count == 3 }
        let running = try RunningThread.all()
        let ids = (0..<3).map { reader in running.first { $0.name == "stall-\(reader)" }.map { UInt32($0.id) } }
        let open = ferry.destination.threadStalls
        #expect(Set(open.filter { $0.open?.page == 3 }.map(\.thread)) == Set([ids[0], ids[1]]))
        #expect(open.filter { $0.open?.page == 5 }.map(\.thread) == [ids[2]])
        #expect(ferry.destination.progress.waiting == 2)
        MonotonicClock.sleep(nanoseconds: 20_000_000)

        let (source, _) = try ferry.makeSource()
        // The faults are requested as soon as the source is connected.
        source.freeze()
        try ferry.connect(source)
        defer { source.detach() }
        readers.join()
        try wait { ferry.destination.threadStalls.allSatisfy { $0.open == nil } }
        // A reader goes on before the fault thread notes its end.
        let waited = MonotonicClock.now() - begin
        for thread in ferry.destination.threadStalls {
            #expect(thread.count == 1)
            #expect((20_000_000...waited).contains(thread.nanoseconds))
        }
        #expect(LatencyRecorder.sum(of: [ferry.destination.stalls]).count == 3)
    }

    @Test func `count once, although a fault is raised again`() throws {
        let stalls = ThreadStalls()
        stalls.begin()
        let fault = Fault(region: 1, page: 7, thread: 40)
        stalls.begin(fault, now: 1000)
        stalls.begin(fault, now: 2000)
        #expect(stalls.count == 1)
        stalls.end(0..<7, region: 1, now: 3000)
        stalls.end(7..<8, region: 0, now: 3000)
        #expect(stalls.count == 1)
        stalls.end(0..<100, region: 1, now: 5000)
        #expect(stalls.count == 0)
        #expect(stalls.threads.map(\.nanoseconds) == [4000])
        #expect(stalls.threads.map(\.count) == [1])
    }

    @Test func `end when the thread faults on another page`() throws {
        let stalls = ThreadStalls()
        stalls.begin()
        stalls.begin(Fault(region: 0, page: 1, thread: 40), now: 1000)
        stalls.begin(Fault(region: 0, page: 2, thread: 40), now: 4000)
        stalls.end(1..<2, region: 0, now: 5000)
        #expect(stalls.threads.map(\.count) == [1])
        #expect(stalls.threads.map(\.nanoseconds) == [3000])
        #expect(stalls.threads[0].open?.page == 2)
    }

    @Test func `of more threads than are told apart are not counted`() throws {
        let stalls = ThreadStalls()
        stalls.begin()
        for thread in 1...UInt32(ThreadStalls.capacity + 10) {
            stalls.begin(Fault(region: 0, page: Int(thread), thread: thread), now: 1000)
        }
        #expect(stalls.count == ThreadStalls.capacity)
        stalls.end(0..<1000, region: 0, now: 2000)
        #expect(stalls.count == 0)
        #expect(stalls.threads.count == ThreadStalls.capacity)
    }

    @Test func `are counted only from the start on, and only of threads that have a number`() throws {
        let stalls = ThreadStalls()
        stalls.begin(Fault(region: 0, page: 1, thread: 40), now: 1000)
        stalls.begin()
        stalls.begin(Fault(region: 0, page: 1, thread: 0), now: 1000)
        #expect(stalls.threads.isEmpty)
        #expect(stalls.count == 0)
    }

    @Test func `are all ended beside the push, whoever places the page`() throws {
        let ferry = try Ferry(pageCounts: [4000], zeroEvery: 1, faultThreads: 2)
        defer { ferry.end() }
        ferry.destination.countStalls()
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        for _ in 0..<4 { try ferry.touch(region: 0, Array(0..<4000).shuffled()) }
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        try wait { ferry.destination.threadStalls.allSatisfy { $0.open == nil } }
        let sum = ferry.destination.threadStalls.reduce(0) { $0 + $1.count }
        #expect(sum == LatencyRecorder.sum(of: [ferry.destination.stalls]).count)
    }
}
