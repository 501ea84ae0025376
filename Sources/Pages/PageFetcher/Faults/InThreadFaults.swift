import LinuxSystem
import PageProtocol
import Synchronization

/// Lets each thread that touches an absent page fetch that page itself, on the urgent lane.
///
/// A fault then needs two wake-ups fewer than with a thread that serves the others. This works only for memory of this
/// process and for accesses that its threads make themselves: an access that the kernel makes for them fails.
final class InThreadFaults: BusFaultResolver {
    private struct State: ~Copyable {
        var requests: RequestBatch
        var lane: AttachedLane?
        var receiver: LaneReceiver?
        /// How long to poll for an answer.
        var answers: PollBudget
    }

    private let memory: ArrivingMemory
    private let pushed: PushedWanted
    private let onEvent: @Sendable (PageFetcher.Event) -> Void
    /// Held from a request until its answer, since the lane serves one thread at a time.
    private let state: Mutex<State>
    /// Raised while a lane is attached.
    private let isLinked: EventDescriptor

    init(
        memory: ArrivingMemory,
        pushed: PushedWanted,
        polling: Duration,
        onEvent: @escaping @Sendable (PageFetcher.Event) -> Void
    ) throws(SystemError) {
        self.memory = memory
        self.pushed = pushed
        self.onEvent = onEvent
        state = Mutex(State(requests: RequestBatch(memory: memory), answers: PollBudget(limit: polling)))
        isLinked = try EventDescriptor()
    }

    /// Sets the lane for later requests; with nil, threads wait.
    ///
    /// The caller has shut the earlier lanes down, and no page of them is placed after this call returns. A waiting
    /// thread repeats its request by itself.
    func use(_ lane: AttachedLane?) {
        state.withLock { state in
            state.receiver = lane.map { LaneReceiver($0, memory: memory) }
            state.lane = lane
            state.requests.use(lane)
            if lane == nil { isLinked.clear() } else { isLinked.raise() }
        }
    }

    func start() {
        BusFaults.add(self)
    }

    /// Stops resolving faults if the memory is complete; otherwise readers of missing pages keep waiting here.
    func stop() {
        if memory.isComplete { BusFaults.remove(self) }
    }

    /// An object to keep as long as the memory can be touched; releasing it stops the resolving of faults.
    func keeper() -> any AnyObject & Sendable { Keeper(self) }

    private final class Keeper: Sendable {
        let faults: InThreadFaults
        init(_ faults: InThreadFaults) { self.faults = faults }
        deinit { BusFaults.remove(faults) }
    }

    func owns(_ address: UInt64) -> Bool {
        memory.fault(at: address) != nil
    }

    func resolve(_ address: UInt64) {
        guard let fault = memory.fault(at: address) else { return }
        // Without a lane a page can still arrive, from a push that is being placed. The interval of 10 ms only bounds
        // how late such a page is noticed; a new lane is noticed at once.
        var outcome = fetch(fault, again: false)
        while outcome != .there {
            if outcome == .refused {
                MonotonicClock.sleep(nanoseconds: 10_000_000)
            } else {
                _ = isLinked.wait(milliseconds: 10)
            }
            outcome = fetch(fault, again: true)
        }
    }

    /// The outcome of an attempt to fetch a touched page.
    private enum Outcome {
        case there
        /// No lane is attached.
        case missing
        /// The page was placed before and was dropped, and no memory is left for it now.
        case refused
    }

    /// Fetches the page of a fault, if it is still missing.
    ///
    /// - Parameters:
    ///   - fault: the fault of this thread.
    ///   - again: whether the page was requested before and has not arrived.
    private func fetch(_ fault: Fault, again: Bool) -> Outcome {
        let begin = MonotonicClock.now()
        let resident = memory.resident[fault.region]
        return state.withLock { state in
            do throws(PlacementFailure) {
                // `add` also answers the fault if the page is present by now, or was dropped after it had arrived.
                try state.requests.add(fault, now: begin)
            } catch {
                memory.tell(fault, error, onEvent)
                return .refused
            }
            if again, !resident.contains(fault.page) { state.requests.askAgain(fault.page, region: fault.region) }
            state.requests.forgetFaults()
            state.requests.send()
            do throws(PlacementFailure) {
                while !resident.contains(fault.page) {
                    guard try receive(&state) else { break }
                }
            } catch {
                state.lane?.tell(.placementFailed(reason: error.reason))
                unlink(&state)
            }
            return resident.contains(fault.page) ? .there : .missing
        }
    }

    /// Waits until data arrives on the urgent lane or the push brings a requested page, and places what has arrived.
    ///
    /// - Returns: false if no lane is attached any more.
    private func receive(_ state: inout State) throws(PlacementFailure) -> Bool {
        guard let lane = state.lane else { return false }
        do throws(SystemError) {
            try lane.socket.stream.waitToReceive(or: pushed.flag, polling: &state.answers)
        } catch {
            // The receiver reports the error.
            lane.shutdown()
        }
        if pushed.flag.isRaised {
            pushed.flag.clear()
            return true
        }
        guard try state.receiver?.receive() == true else {
            unlink(&state)
            return false
        }
        return true
    }

    /// Forgets the ended lane; the next lane repeats the requests for wanted pages.
    private func unlink(_ state: inout State) {
        state.receiver = nil
        state.lane = nil
        state.requests.use(nil)
        isLinked.clear()
    }
}
