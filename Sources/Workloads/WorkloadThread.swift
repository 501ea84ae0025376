import Guest
import LinuxSystem
import Synchronization
import Telemetry

/// One thread of a workload: its place, its figures, and the loop that works.
///
/// `@unchecked Sendable`: `state` belongs to the running thread, and while none runs to whoever stopped it; starting
/// and joining a thread orders the two.
final class WorkloadThread: @unchecked Sendable {
    /// Which thread it is, from 0.
    let index: Int
    /// Where it is.
    var state: ThreadState
    /// What it waited for absent pages.
    let stalls = LatencyRecorder()

    let configuration: WorkloadConfiguration
    let memory: WorkloadMemory
    private let console: ConsoleDevice
    private let witness: Witness?
    /// What the next run, or the one that runs, is to tell the witness; as `state`.
    private var witnessed: Witness.Run?

    // Written by the running thread alone, read by anyone: relaxed, since each is a figure by itself.
    private let operations = Atomic<UInt64>(0)
    private let operationsBefore = Atomic<UInt64>(0)
    /// Times; 0 is none.
    private let first = Atomic<UInt64>(0)
    private let last = Atomic<UInt64>(0)

    init(
        index: Int,
        configuration: WorkloadConfiguration,
        memory: WorkloadMemory,
        console: ConsoleDevice,
        witness: Witness?
    ) {
        self.index = index
        self.configuration = configuration
        self.memory = memory
        self.console = console
        self.witness = witness
        state = ThreadState(random: RandomStream(seed: configuration.seed, stream: UInt64(index)))
    }

    /// How many pages it owns.
    var pageCount: Int { memory.pageCount(ofThread: index) }

    /// Its part of a table.
    func shard(_ access: PageAccess) -> KeyValueShard {
        KeyValueShard(access: access, thread: index, threadCount: memory.threadCount, pageCount: pageCount)
    }

    /// Forgets the last run's first operation. It does not run.
    ///
    /// - Throws: ``WorkloadError`` when it is to be witnessed and cannot be.
    func prepare() throws(WorkloadError) {
        witnessed = try witness?.makeRun()
        operationsBefore.store(operations.load(ordering: .relaxed), ordering: .relaxed)
        first.store(0, ordering: .relaxed)
    }

    /// Adds the thread's figures up with those of others.
    func add(to activity: inout WorkloadActivity) {
        // The figure from before is read first: it never exceeds the newer one.
        let before = operationsBefore.load(ordering: .relaxed)
        let all = operations.load(ordering: .relaxed)
        activity.operations += all
        activity.operationsSinceStart += all - before
        let (first, last) = (first.load(ordering: .relaxed), last.load(ordering: .relaxed))
        if first != 0 { activity.firstOperation = min(activity.firstOperation ?? .max, first) }
        if last != 0 { activity.lastOperation = max(activity.lastOperation ?? 0, last) }
    }

    /// Works until the signal ends the run or `limit` operations are done. On the calling thread.
    func work(until signal: RunSignal, limit: UInt64 = .max) {
        let access = memory.access(recordingIn: stalls)
        let count = pageCount
        let writes = WriteChoice(fraction: configuration.writeFraction)
        let seed = mixed(configuration.seed &+ UInt64(index))
        func pages<Order: PageOrder>(_ order: Order) {
            loop(
                PageStepper(
                    access: access,
                    thread: index,
                    threadCount: memory.threadCount,
                    writes: writes,
                    order: order,
                    state: state
                ),
                signal,
                limit
            )
        }
        // The closing brace must not come before the last use of an unretained pointer.
        withExtendedLifetime((memory, stalls)) {
            switch configuration.pattern {
            case .sequential: pages(SequentialOrder(count: count))
            case .random: pages(RandomOrder(count: count))
            case .zipf: pages(ZipfOrder(count: count, seed: seed))
            case .chase:
                loop(
                    ChaseStepper(
                        access: access,
                        thread: index,
                        threadCount: memory.threadCount,
                        count: count,
                        writes: writes,
                        state: state
                    ),
                    signal,
                    limit
                )
            case .kv:
                let plan = KeyValuePlan(configuration)
                let stepper = KeyValueStepper(
                    shard: shard(access),
                    plan: plan,
                    writes: writes,
                    seed: seed,
                    state: state
                )
                loop(stepper, signal, limit)
            }
        }
    }

    /// Between two readings of the clock, where no think time needs one anyway.
    private static let operationsPerReading: UInt64 = 256
    /// Between two lines on the console.
    private static let operationsPerLine: UInt64 = 1 << 20

    @inline(never)
    private func loop<Stepper: AccessStepper>(_ initial: Stepper, _ signal: RunSignal, _ limit: UInt64) {
        var stepper = initial
        let before = operations.load(ordering: .relaxed)
        let thinkTime = configuration.thinkTime
        var done: UInt64 = 0
        let witnessed = witnessed
        witnessed?.begin()
        while done < limit && !signal.isStopping {
            if let witnessed { witnessed.operate() }
            stepper.step()
            stepper.state.operations &+= 1
            done &+= 1
            operations.store(before &+ done, ordering: .relaxed)
            if thinkTime > 0 || done == 1 || done % WorkloadThread.operationsPerReading == 0 {
                let now = MonotonicClock.now()
                last.store(now, ordering: .relaxed)
                if done == 1 { first.store(now, ordering: .relaxed) }
                if stepper.state.operations % WorkloadThread.operationsPerLine == 0 {
                    console.write("thread \(index): operation \(stepper.state.operations)")
                }
                if thinkTime > 0 { signal.rest(from: now, for: thinkTime) }
            }
        }
        // Without think time, the last operation ended just now.
        if thinkTime == 0 && done > 0 { last.store(MonotonicClock.now(), ordering: .relaxed) }
        state = stepper.state
        witnessed?.end()
    }
}
