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

    let far: FarLink
    let size: Size
    let onProgress: (String) -> Void

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
            push(), zeroPush(),
        ] + pushWithReader() + [sequential()] + threads()
    }

    // MARK: Rounds

    func alternate(
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

    func round(
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

    func finish(_ figures: inout Figures, since begin: UInt64) {
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        figures.seconds = seconds
        figures.mebibytesPerSecond = Double(size.pushedPages) / 256 / seconds
    }

    func usage() throws -> Double { try Double(far.ask(.usage).cpuNanoseconds) + Double(ProcessClock.now()) }

    func wait(for rig: any Rig) throws {
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
    ///   - order: of all pages; nil for any.
    func touchAll(
        _ rig: any Rig,
        _ recorders: [LatencyRecorder],
        sum: LatencyRecorder? = nil,
        order: [Int]? = nil
    ) throws {
        let (pageCount, threads) = (rig.pageCount, recorders.count)
        let order = order ?? (0..<pageCount).shuffled()
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
    func touchWhilePushed(_ rig: any Rig, _ recorder: LatencyRecorder, _ other: LatencyRecorder?) throws {
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
    func check(_ rig: any Rig, _ wrong: Wrong) throws {
        // Pages that no longer come read as zeros: that they are wrong is not the reason.
        if let failure = rig.memory.failure { throw BenchFailure(failure) }
        let page = wrong.page.load(ordering: .relaxed)
        guard page < 0 else { throw BenchFailure("page \(page) holds something else than the far end has") }
    }

    /// What no access to a page that is there takes, in nanoseconds, and no fault falls short of.
    private static let longAccess: UInt64 = 8000
}

/// A page that did not hold what it should; negative for none.
final class Wrong: Sendable {
    let page = Atomic<Int>(-1)
}

/// A thread that touches pages.
final class Toucher: Sendable {
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
