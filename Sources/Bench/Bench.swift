import DestinationAgent
public import LinuxSystem
import Synchronization
import Telemetry

/// Measures the moving of pages against the least code that does the same, in turn.
public struct Bench: ~Copyable {
    /// How much is measured.
    public struct Size: Sendable {
        /// Rounds of each case, an odd number.
        public var rounds = 7
        /// Pages touched in a round without a push.
        public var faults = 4000
        /// Pages of the memory that is pushed.
        public var pushedPages = 65536

        /// The usual size.
        public init() {}
    }

    private let far: FarLink
    private let size: Size
    private let onProgress: (String) -> Void

    /// Connects to a far end.
    ///
    /// - Parameter onProgress: told which case begins.
    public init(to address: SocketAddress, size: Size = Size(), onProgress: @escaping (String) -> Void) throws {
        far = try FarLink(to: address)
        self.size = size
        self.onProgress = onProgress
    }

    /// Measures every case.
    public func run() throws -> [Comparison] {
        let (quiet, pushed) = (LatencyRecorder(), LatencyRecorder())
        let single = try faults(quiet)
        let inThread = try inThread()
        let contended = try contended(pushed)
        return try floors() + [
            Comparison("fault", against: "bare remote fault", single, stalls: [quiet]),
            inThread,
            Comparison("fault-under-push", against: "bare remote fault under push", contended, stalls: [pushed]),
            Comparison(
                "fault-push-on",
                against: "fault",
                zip(contended, single).map { (ours: $0.ours, other: $1.ours) }
            ),
            push(), zeroPush(), pushWithReader(), sequential(),
        ] + threads()
    }

    // MARK: Cases

    /// What no fault can do without: the least code that asks the far end for a page, and that answers a fault from
    /// memory at hand, each held against the least that does both.
    private func floors() throws -> [Comparison] {
        onProgress("floors")
        var trips: Rounds = []
        var local: Rounds = []
        for _ in 0..<size.rounds {
            let both = try round(BenchSetup(service: .bare, pageCount: size.faults)) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder])
                figures.take([recorder])
            }
            trips.append((try roundTrips(), both))
            local.append((try localFaults(), both))
        }
        return [
            Comparison("floor-round-trip", against: "bare remote fault", trips),
            Comparison("floor-local-fault", against: "bare remote fault", local),
        ]
    }

    private func roundTrips() throws -> Figures {
        let lanes = BareLanes(try far.lanes(BenchSetup(service: .bare, pageCount: size.faults)))
        defer { lanes.shutdown() }
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { stage.deallocate() }
        let recorder = LatencyRecorder()
        for page in (0..<size.faults).shuffled() {
            let begin = MonotonicClock.now()
            try withUnsafeBytes(of: UInt64(page)) { try lanes.urgent.send($0) }
            guard try lanes.urgent.receive(exactly: stage) == 4096 else {
                throw BenchFailure("the far end has closed the urgent lane")
            }
            recorder.record(nanoseconds: MonotonicClock.now() - begin)
        }
        try far.ask(.end)
        var figures = Figures()
        figures.take([recorder])
        return figures
    }

    private func localFaults() throws -> Figures {
        let rig = try LocalRig(pageCount: size.faults)
        defer { rig.end() }
        let recorder = LatencyRecorder()
        try touchAll(rig, [recorder])
        var figures = Figures()
        figures.take([recorder])
        return figures
    }

    /// Single faults of one thread at random, nothing pushed.
    private func faults(_ stalls: LatencyRecorder) throws -> Rounds {
        try alternate("fault") { service in
            try round(BenchSetup(service: service, pageCount: size.faults)) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder], sum: service == .agent ? stalls : nil)
                figures.take([recorder])
            }
        }
    }

    /// The same, where the thread that touches a page fetches it itself.
    private func inThread() throws -> Comparison {
        let stalls = LatencyRecorder()
        let rounds = try alternate("fault-in-thread") { service in
            try round(BenchSetup(service: service, pageCount: size.faults), inThread: true) { rig, figures in
                let recorder = LatencyRecorder()
                try touchAll(rig, [recorder], sum: service == .agent ? stalls : nil)
                figures.take([recorder])
            }
        }
        return Comparison("fault-in-thread", against: "bare remote fault in the thread", rounds, stalls: [stalls])
    }

    /// Faults of one thread at random, while all of the memory is pushed at full rate.
    private func contended(_ stalls: LatencyRecorder) throws -> Rounds {
        try alternate("fault-under-push") { service in
            try round(BenchSetup(service: service, pageCount: size.pushedPages)) { rig, figures in
                let recorder = LatencyRecorder()
                let begin = MonotonicClock.now()
                try far.ask(.push)
                try touchWhilePushed(rig, recorder, service == .agent ? stalls : nil)
                finish(&figures, since: begin)
                figures.take([recorder])
            }
        }
    }

    /// The push of memory that nobody touches.
    private func push() throws -> Comparison {
        let rounds = try alternate("push") { service in
            var best = try pushAlone(BenchSetup(service: service, pageCount: size.pushedPages))
            if service == .bare {
                let other = try pushAlone(BenchSetup(service: service, pageCount: size.pushedPages, chunk: 64))
                if other.seconds ?? .infinity < best.seconds ?? .infinity { best = other }
            }
            return best
        }
        return Comparison("push", against: "bare push, the better of 16 and 64 pages", rounds)
    }

    private func pushAlone(_ setup: BenchSetup) throws -> Figures {
        try round(setup) { rig, figures in
            let before = try usage()
            let begin = MonotonicClock.now()
            try far.ask(.push)
            try wait(for: rig)
            finish(&figures, since: begin)
            let gibibytes = Double(size.pushedPages) / 262_144
            figures.cpuSecondsPerGiB = Double(try usage() - before) / 1e9 / gibibytes
        }
    }

    /// The push of zero pages, against that of others.
    private func zeroPush() throws -> Comparison {
        onProgress("push-zeros")
        var rounds: Rounds = []
        for _ in 0..<size.rounds {
            let zeros = try pushAlone(BenchSetup(service: .agent, content: .zeros, pageCount: size.pushedPages))
            rounds.append((zeros, try pushAlone(BenchSetup(service: .agent, pageCount: size.pushedPages))))
        }
        return Comparison("push-zeros", against: "push", rounds)
    }

    /// The push while a thread touches pages at random, against the push alone.
    private func pushWithReader() throws -> Comparison {
        onProgress("push-with-reader")
        var rounds: Rounds = []
        for _ in 0..<size.rounds {
            let setup = BenchSetup(service: .agent, pageCount: size.pushedPages)
            let read = try round(setup) { rig, figures in
                let begin = MonotonicClock.now()
                try far.ask(.push)
                try touchWhilePushed(rig, LatencyRecorder(), nil)
                finish(&figures, since: begin)
            }
            rounds.append((read, try pushAlone(setup)))
        }
        return Comparison("push-with-reader", against: "push", rounds)
    }

    /// A reader that goes from page to page, against the same where each page is asked for when it is touched.
    private func sequential() throws -> Comparison {
        onProgress("sequential")
        var rounds: Rounds = []
        for _ in 0..<size.rounds {
            rounds.append((try readInOrder(.streams()), try readInOrder(.none)))
        }
        return Comparison("sequential", against: "one fault a page", rounds)
    }

    private func readInOrder(_ prefetch: Prefetch) throws -> Figures {
        let pageCount = size.faults * 4
        return try round(BenchSetup(service: .agent, pageCount: pageCount), prefetch: prefetch) { rig, figures in
            let stalls = LatencyRecorder()
            let wrong = Wrong()
            let region = rig.memory.region
            // Dropped at once, which waits for it.
            _ = try Toucher {
                for page in 0..<pageCount {
                    let (value, nanoseconds) = Toucher.touch(region.page(page))
                    if nanoseconds > Bench.presentAccess { stalls.record(nanoseconds: nanoseconds) }
                    if value != UInt64(page) + 1 { wrong.page.store(page, ordering: .relaxed) }
                }
            }
            try check(rig, wrong)
            figures.seconds = Double(LatencyRecorder.sum(of: [stalls]).nanoseconds) / 1e9
        }
    }

    /// An access to a page that is there and in no cache takes less, in nanoseconds.
    private static let presentAccess: UInt64 = 1000

    /// Faults of several threads at once, against those of one.
    private func threads() throws -> [Comparison] {
        var rounds: [Int: Rounds] = [:]
        onProgress("fault-threads")
        for _ in 0..<size.rounds {
            let one = try threaded(1)
            for count in [2, 4, 8, 16] { rounds[count, default: []].append((try threaded(count), one)) }
        }
        return rounds.keys.sorted().map { Comparison("fault-threads-\($0)", against: "one thread", rounds[$0] ?? []) }
    }

    private func threaded(_ count: Int) throws -> Figures {
        try round(BenchSetup(service: .agent, pageCount: size.faults * 4)) { rig, figures in
            let recorders = (0..<count).map { _ in LatencyRecorder() }
            let begin = MonotonicClock.now()
            try touchAll(rig, recorders)
            figures.seconds = Double(MonotonicClock.now() - begin) / 1e9
            figures.mebibytesPerSecond = Double(rig.memory.region.pageCount) / 256 / (figures.seconds ?? 1)
            figures.take(recorders)
        }
    }

    // MARK: Rounds

    private func alternate(
        _ name: String,
        _ round: (BenchSetup.Service) throws -> Figures
    ) throws -> Rounds {
        onProgress(name)
        return try (0..<size.rounds).map { number in
            // Who goes first changes, so that a drift harms both.
            if number % 2 == 0 { return (try round(.agent), try round(.bare)) }
            let other = try round(.bare)
            return (try round(.agent), other)
        }
    }

    private func round(
        _ setup: BenchSetup,
        prefetch: Prefetch = .streams(),
        inThread: Bool = false,
        _ body: (any Rig, inout Figures) throws -> Void
    ) throws -> Figures {
        let lanes = try far.lanes(setup)
        let rig: any Rig =
            switch setup.service {
            case .agent:
                try AgentRig(pageCount: setup.pageCount, prefetch: prefetch, inThread: inThread, lanes: lanes)
            case .bare where inThread: try BareInThreadRig(pageCount: setup.pageCount, lanes: BareLanes(lanes))
            case .bare: try BareRig(pageCount: setup.pageCount, chunk: setup.chunk, lanes: BareLanes(lanes))
            }
        defer { rig.end() }
        var figures = Figures()
        try body(rig, &figures)
        try far.ask(.end)
        return figures
    }

    private func finish(_ figures: inout Figures, since begin: UInt64) {
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        figures.seconds = seconds
        figures.mebibytesPerSecond = Double(size.pushedPages) / 256 / seconds
    }

    private func usage() throws -> UInt64 { try far.ask(.usage).cpuNanoseconds + ProcessClock.now() }

    private func wait(for rig: any Rig) throws {
        while !rig.memory.isComplete {
            if let failure = rig.memory.failure { throw BenchFailure(failure) }
            MonotonicClock.sleep(nanoseconds: 200_000)
        }
    }

    // MARK: Touching

    /// Touches every page once, at random; each thread has pages of its own.
    ///
    /// - Parameters:
    ///   - recorders: one a thread.
    ///   - sum: counts what one thread waits too; not for several.
    private func touchAll(_ rig: any Rig, _ recorders: [LatencyRecorder], sum: LatencyRecorder? = nil) throws {
        let (pageCount, threads) = (rig.pageCount, recorders.count)
        let order = (0..<pageCount).shuffled()
        let region = rig.memory.region
        let wrong = Wrong()
        do {
            var toucher: [Toucher] = []
            for index in 0..<threads {
                let share = stride(from: index, to: pageCount, by: threads).map { order[$0] }
                toucher.append(
                    try Toucher {
                        for page in share {
                            let (value, nanoseconds) = Toucher.touch(region.page(page))
                            recorders[index].record(nanoseconds: nanoseconds)
                            sum?.record(nanoseconds: nanoseconds)
                            if value != UInt64(page) + 1 { wrong.page.store(page, ordering: .relaxed) }
                        }
                    }
                )
            }
            // Dropping them waits for them.
            toucher.removeAll()
        }
        try check(rig, wrong)
    }

    /// Touches pages at random until all have come; an access that took long waited for an absent page.
    private func touchWhilePushed(_ rig: any Rig, _ recorder: LatencyRecorder, _ other: LatencyRecorder?) throws {
        let region = rig.memory.region
        let pageCount = UInt64(size.pushedPages)
        let wrong = Wrong()
        // Dropped at once, which waits for it.
        _ = try Toucher {
            var state: UInt64 = 88_172_645_463_325_252
            while !rig.memory.isComplete, rig.memory.failure == nil {
                for _ in 0..<64 {
                    state ^= state << 13
                    state ^= state >> 7
                    state ^= state << 17
                    let page = Int(state % pageCount)
                    let (value, nanoseconds) = Toucher.touch(region.page(page))
                    if nanoseconds > Bench.longAccess {
                        recorder.record(nanoseconds: nanoseconds)
                        other?.record(nanoseconds: nanoseconds)
                    }
                    if value != UInt64(page) + 1 { wrong.page.store(page, ordering: .relaxed) }
                }
            }
        }
        try check(rig, wrong)
    }

    /// Throws what is wrong after pages were touched.
    private func check(_ rig: any Rig, _ wrong: Wrong) throws {
        // Pages that no longer come read as zeros: that they are wrong is not the reason.
        if let failure = rig.memory.failure { throw BenchFailure(failure) }
        let page = wrong.page.load(ordering: .relaxed)
        guard page < 0 else { throw BenchFailure("page \(page) holds something else than the far end has") }
    }

    /// What no access to a page that is there takes, in nanoseconds, and no fault falls short of.
    private static let longAccess: UInt64 = 8000
}

/// A page that did not hold what it should; negative for none.
private final class Wrong: Sendable {
    let page = Atomic<Int>(-1)
}

/// A thread that touches pages.
private final class Toucher: Sendable {
    private let thread: JoinedThread

    init(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
        thread = try JoinedThread(name: "touch", body)
    }

    /// The first word of a page, and how long it took to have it.
    @inline(__always)
    static func touch(_ page: UnsafeMutableRawPointer) -> (value: UInt64, nanoseconds: UInt64) {
        let begin = MonotonicClock.now()
        // An atomic load is neither left out nor moved across the clock.
        let value = page.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
        return (value, MonotonicClock.now() - begin)
    }
}
