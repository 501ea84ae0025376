import Guest
import LinuxSystem
import Synchronization
import Telemetry

/// One thread of a workload: its state, its counters, and its loop.
///
/// `@unchecked Sendable`: `state` belongs to the running thread or, while no thread runs, to the caller that stopped
/// it. Starting and joining the thread orders the two.
final class WorkloadThread: @unchecked Sendable {
    /// The thread's number, from 0.
    let index: Int
    /// The state that travels with the workload.
    var state: ThreadState
    /// The waits for absent pages in this process.
    let stalls = LatencyRecorder()

    let configuration: WorkloadConfiguration
    let memory: WorkloadMemory
    private let console: ConsoleDevice
    private let witness: Witness?
    /// The witness's slot for the current or next run, owned as `state` is; nil without a witness.
    private var witnessed: Witness.Run?

    // Relaxed: the running thread alone writes these counters, and nothing else is read on the strength of them.
    private let operations = Atomic<UInt64>(0)
    private let operationsBefore = Atomic<UInt64>(0)
    /// When the first operation of this run and the latest operation ended, of ``MonotonicClock``; 0 for never.
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

    /// The number of pages that belong to the thread.
    var pageCount: Int { memory.pageCount(ofThread: index) }

    /// The thread's part of the key-value table.
    func shard(_ access: PageAccess) -> KeyValueShard {
        KeyValueShard(access: access, thread: index, threadCount: memory.threadCount, pageCount: pageCount)
    }

    /// Prepares the next run of the thread, which must not be running.
    ///
    /// - Throws: ``WorkloadError`` if the witness file is full.
    func prepare() throws(WorkloadError) {
        witnessed = try witness?.makeRun()
        operationsBefore.store(operations.load(ordering: .relaxed), ordering: .relaxed)
        first.store(0, ordering: .relaxed)
    }

    /// Adds the thread's counters to those of other threads.
    func add(to activity: inout WorkloadActivity) {
        // The older counter is read first, so that it never exceeds the newer one.
        let before = operationsBefore.load(ordering: .relaxed)
        let all = operations.load(ordering: .relaxed)
        activity.operations += all
        activity.operationsSinceStart += all - before
        let (first, last) = (first.load(ordering: .relaxed), last.load(ordering: .relaxed))
        if first != 0 { activity.firstOperation = min(activity.firstOperation ?? .max, first) }
        if last != 0 { activity.lastOperation = max(activity.lastOperation ?? 0, last) }
    }

    /// Does operations on the calling thread, until the signal ends the run or `limit` operations are done.
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
        // The pointers in `access` do not retain these objects.
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

    /// Operations between two readings of the clock; with a think time each operation reads it.
    private static let operationsPerReading: UInt64 = 256
    /// Operations between two lines on the console.
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
        // Without think time, the clock was not read after the last operation.
        if thinkTime == 0 && done > 0 { last.store(MonotonicClock.now(), ordering: .relaxed) }
        state = stepper.state
        witnessed?.end()
    }
}
