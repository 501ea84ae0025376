package import LinuxSystem
import PageFetcher
import Synchronization
import Telemetry

/// Measures how pages move, and compares each case with the least code that does the same, in alternating rounds.
package struct Bench: ~Copyable {
    /// How much a benchmark measures.
    package struct Size: Sendable {
        /// Rounds of each case; an odd number, so that one of them is the median.
        package var rounds = 7
        /// Pages touched in a round without a push.
        package var faults = 4000
        /// Pages of memory in a round with a push.
        package var pushedPages = 65536

        /// The default size.
        package init() {}
    }

    let far: FarLink
    let size: Size
    let onProgress: (String) -> Void

    /// Connects to a far end.
    ///
    /// `onProgress` is called with the name of each case when the case begins.
    ///
    /// - Throws: a `SystemError` if the far end cannot be reached.
    package init(to address: SocketAddress, size: Size = Size(), onProgress: @escaping (String) -> Void) throws {
        far = try FarLink(to: address)
        self.size = size
        self.onProgress = onProgress
    }

    /// A measurement, which compares one or several cases.
    package enum Measurement: String, CaseIterable, Sendable {
        case floors
        case fault
        case faultFile = "fault-file"
        case faultPrivate = "fault-private"
        case faultInThread = "fault-in-thread"
        case quietFault = "quiet-fault"
        case faultUnderPush = "fault-under-push"
        case push
        case pushFile = "push-file"
        case pushPrivate = "push-private"
        case pushZeros = "push-zeros"
        case pushLanes = "push-lanes"
        case pushDelayed = "push-delayed"
        case pushAuto = "push-auto"
        case pushCompressed = "push-compressed"
        case pushWithReader = "push-with-reader"
        case sequential
        case faultThreads = "fault-threads"
    }

    /// Measures, in the order of the list.
    ///
    /// The faults with the push under way are compared with those without only if both are measured.
    ///
    /// - Throws: ``BenchFailure`` if the far end fails or a page is wrong, or the error of the call that failed.
    package func run(_ measurements: [Measurement] = Measurement.allCases) throws -> [Comparison] {
        var single: Rounds?
        return try measurements.flatMap { measurement -> [Comparison] in
            switch measurement {
            case .floors: return try floors()
            case .fault:
                let stalls = LatencyRecorder()
                let rounds = try faults(stalls)
                single = rounds
                return [Comparison("fault", against: "bare remote fault", rounds, stalls: [stalls])]
            case .faultFile: return [try faults(from: .file, "fault-file")]
            case .faultPrivate: return [try faults(from: .process, "fault-private")]
            case .faultInThread: return [try inThread()]
            case .quietFault: return try quietFaults()
            case .faultUnderPush:
                let stalls = LatencyRecorder()
                let rounds = try contended(stalls)
                let compared = Comparison(
                    "fault-under-push",
                    against: "bare remote fault under push",
                    rounds,
                    stalls: [stalls]
                )
                guard let single else { return [compared] }
                let both = zip(rounds, single).map { (ours: $0.ours, other: $1.ours) }
                return [compared, Comparison("fault-push-on", against: "fault", both)]
            case .push: return [try push()]
            case .pushFile: return [try push(from: .file, "push-file")]
            case .pushPrivate: return [try push(from: .process, "push-private")]
            case .pushZeros: return [try zeroPush()]
            case .pushLanes: return try pushOverLanes()
            case .pushDelayed: return try pushThroughDelay()
            case .pushAuto: return [try autoPush()]
            case .pushCompressed: return try compressedPushes()
            case .pushWithReader: return try pushWithReader()
            case .sequential: return [try sequential()]
            case .faultThreads: return try threads()
            }
        }
    }

    // MARK: Rounds

    func alternate(
        _ name: String,
        _ round: (BenchSetup.Service) throws -> Figures
    ) throws -> Rounds {
        try alternate(name, BenchSetup.Service.agent, .bare, round)
    }

    func alternate<Side>(
        _ name: String,
        _ ours: Side,
        _ other: Side,
        _ round: (Side) throws -> Figures
    ) throws -> Rounds {
        onProgress(name)
        return try (0..<size.rounds).map { number in
            // The side that goes first alternates, so that a drift harms both equally.
            if number % 2 == 0 { return (try round(ours), try round(other)) }
            let second = try round(other)
            return (try round(ours), second)
        }
    }

    func round(
        _ setup: BenchSetup,
        prefetch: Prefetch = .streams(),
        inThread: Bool = false,
        through relay: DelayRelay? = nil,
        over rate: Int? = nil,
        _ body: (any Rig, inout Figures) throws -> Void
    ) throws -> Figures {
        var lanes = try far.lanes(setup, through: relay)
        // Dropping the slow link waits for its thread, after both ends were closed.
        let slowLink = try rate.map { try RateRelay(of: lanes.bulk[0], to: $0) }
        defer { withExtendedLifetime(slowLink) {} }
        if let slowLink { lanes.bulk = [slowLink.near] }
        let rig: any Rig =
            switch setup.service {
            case .agent:
                try AgentRig(
                    pageCount: setup.pageCount,
                    prefetch: prefetch,
                    inThread: inThread,
                    polling: setup.waiting.polling,
                    lanes: lanes
                )
            case .bare where inThread: try BareInThreadRig(setup, lanes: lanes)
            case .bare: try BareRig(setup, lanes: lanes)
            }
        defer { rig.end() }
        var figures = Figures()
        try body(rig, &figures)
        try far.ask(.end)
        return figures
    }

    func finish(_ figures: inout Figures, since begin: UInt64, pages: Int? = nil) {
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        figures.seconds = seconds
        figures.mebibytesPerSecond = Double(pages ?? size.pushedPages) / 256 / seconds
    }

    func usage() throws -> Double { try Double(far.ask(.usage).cpuNanoseconds) + Double(ProcessClock.now()) }

    func wait(for rig: any Rig) throws {
        while !rig.memory.isComplete {
            if let failure = rig.memory.failure { throw BenchFailure(failure) }
            MonotonicClock.sleep(nanoseconds: 200_000)
        }
    }

    // MARK: Touching

    /// Touches every page once, at random; each thread touches pages of its own.
    ///
    /// - Parameters:
    ///   - recorders: one for each thread.
    ///   - sum: also records the waits; only for one thread.
    ///   - order: the numbers of all pages in the order of their touches; nil for a random order.
    ///   - shortest: nanoseconds that an access must exceed to be recorded.
    ///   - think: nanoseconds for which a thread works after each touch.
    /// - Returns: the processor time that the touching threads used, in nanoseconds.
    @discardableResult
    func touchAll(
        _ rig: any Rig,
        _ recorders: [LatencyRecorder],
        sum: LatencyRecorder? = nil,
        order: [Int]? = nil,
        beyond shortest: UInt64 = 0,
        think: UInt64 = 0
    ) throws -> UInt64 {
        let (pageCount, threads) = (rig.pageCount, recorders.count)
        let order = order ?? (0..<pageCount).shuffled()
        let region = rig.memory.region
        let wrong = Wrong()
        let used = Used()
        do {
            var toucher: [Toucher] = []
            for index in 0..<threads {
                let share = stride(from: index, to: pageCount, by: threads).map { order[$0] }
                toucher.append(
                    try Toucher {
                        for page in share {
                            let (value, nanoseconds) = Toucher.touch(region.page(page))
                            if nanoseconds > shortest { recorders[index].record(nanoseconds: nanoseconds) }
                            sum?.record(nanoseconds: nanoseconds)
                            if value != UInt64(page) + 1 { wrong.page.store(page, ordering: .relaxed) }
                            Toucher.work(for: think)
                        }
                        used.nanoseconds.add(ThreadClock.now(), ordering: .relaxed)
                    }
                )
            }
            // Dropping the touchers waits for their threads.
            toucher.removeAll()
        }
        try check(rig, wrong)
        return used.nanoseconds.load(ordering: .relaxed)
    }

    /// Touches random pages until all pages have arrived, and records each access that waited for an absent page.
    ///
    /// An access that takes longer than ``longAccess`` counts as one that waited.
    func touchWhilePushed(_ rig: any Rig, _ recorder: LatencyRecorder, _ other: LatencyRecorder?) throws {
        let region = rig.memory.region
        let pageCount = UInt64(size.pushedPages)
        let wrong = Wrong()
        // The toucher is dropped at once, which waits for its thread.
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

    /// Throws if the rig has failed, or if a touched page held wrong bytes.
    func check(_ rig: any Rig, _ wrong: Wrong) throws {
        // The failure is thrown first: pages that no longer arrive read as zeros, and look wrong for that reason alone.
        if let failure = rig.memory.failure { throw BenchFailure(failure) }
        let page = wrong.page.load(ordering: .relaxed)
        guard page < 0 else { throw BenchFailure("page \(page) does not hold what the far end has sent") }
    }

    /// Nanoseconds that every access to a present page stays below, and that every fault exceeds.
    private static let longAccess: UInt64 = 8000
}

/// The number of a page that held wrong bytes; negative if there is none.
final class Wrong: Sendable {
    let page = Atomic<Int>(-1)
}

/// Processor time that threads have used.
private final class Used: Sendable {
    let nanoseconds = Atomic<UInt64>(0)
}

/// A thread that touches pages.
final class Toucher: Sendable {
    private let thread: JoinedThread

    init(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
        thread = try JoinedThread(name: "touch", body)
    }

    /// Keeps the processor busy for a time in nanoseconds.
    static func work(for nanoseconds: UInt64) {
        guard nanoseconds > 0 else { return }
        let end = MonotonicClock.now() + nanoseconds
        while MonotonicClock.now() < end {}
    }

    /// Reads the first word of a page, and measures how long that took.
    @inline(__always)
    static func touch(_ page: UnsafeMutableRawPointer) -> (value: UInt64, nanoseconds: UInt64) {
        let begin = MonotonicClock.now()
        // An atomic load is neither left out nor moved across the reading of the clock.
        let value = page.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
        return (value, MonotonicClock.now() - begin)
    }
}
