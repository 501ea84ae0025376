import LinuxSystem
import PageProtocol
import Synchronization

/// Lets each thread that touches an absent page fetch that page itself, on the urgent lane: two wake-ups less than a
/// thread that serves the others.
///
/// Only for memory of this process, and for accesses that its threads make themselves: one that the kernel makes for
/// them fails.
final class InThreadFaults: BusFaultResolver {
    private struct State: ~Copyable {
        var requests: RequestBatch
        var lane: AttachedLane?
        var receiver: LaneReceiver?
    }

    private let memory: ArrivingMemory
    private let pushed: PushedWanted
    private let onEvent: @Sendable (DestinationAgent.Event) -> Void
    /// Held from a request to its answer: one lane serves one thread at a time.
    private let state: Mutex<State>
    /// Raised while there is a lane.
    private let isLinked: EventDescriptor

    init(
        memory: ArrivingMemory,
        pushed: PushedWanted,
        onEvent: @escaping @Sendable (DestinationAgent.Event) -> Void
    ) throws(SystemError) {
        self.memory = memory
        self.pushed = pushed
        self.onEvent = onEvent
        state = Mutex(State(requests: RequestBatch(memory: memory), receiver: nil))
        isLinked = try EventDescriptor()
    }

    /// From now on pages are asked for on this lane; with nil, threads wait. Those used before have been shut down;
    /// when this returns, nothing more is placed from them.
    ///
    /// A thread that waits asks again for its page by itself.
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

    /// Complete memory raises no faults any more; for other memory this stays the one to ask, and its readers wait.
    func stop() {
        if memory.isComplete { BusFaults.remove(self) }
    }

    /// What has to be kept for as long as its memory can be touched: then this is no longer asked.
    func keeper() -> any AnyObject & Sendable { Keeper(self) }

    private final class Keeper: Sendable {
        let faults: InThreadFaults
        init(_ faults: InThreadFaults) { self.faults = faults }
        deinit { BusFaults.remove(faults) }
    }

    func owns(_ address: UInt64) -> Bool {
        memory.ranges.contains { address >= $0.address && address - $0.address < $0.byteCount }
    }

    func resolve(_ address: UInt64) {
        // Without a lane a page can still come: the last of a push that is being placed. The interval only bounds how late
        // that is seen; a lane is seen at once.
        var outcome = fetch(address, again: false)
        while outcome != .there {
            if outcome == .refused {
                MonotonicClock.sleep(nanoseconds: 10_000_000)
            } else {
                _ = isLinked.wait(milliseconds: 10)
            }
            outcome = fetch(address, again: true)
        }
    }

    /// What has become of a page that a thread has touched.
    private enum Outcome {
        case there
        /// There is no lane.
        case missing
        /// The page was there before, and no memory is left for the page now.
        case refused
    }

    /// - Parameter again: whether the page was asked for before, and has not come.
    private func fetch(_ address: UInt64, again: Bool) -> Outcome {
        let begin = MonotonicClock.now()
        return state.withLock { state in
            guard let (region, page) = memory.place(of: address) else { return .there }
            do throws(PlacementFailure) {
                // Also where the page is there by now, or was dropped after it had come.
                try state.requests.add(address: address, thread: 0, now: begin)
            } catch {
                memory.tell(address, error, onEvent)
                return .refused
            }
            if again, !memory.resident[region].contains(page) { state.requests.askAgain(page, region: region) }
            state.requests.forgetFaults()
            state.requests.send()
            do throws(PlacementFailure) {
                while !memory.resident[region].contains(page) {
                    guard try receive(&state) else { break }
                }
            } catch {
                onEvent(.failed(reason: error.reason))
                unlink(&state)
            }
            return memory.resident[region].contains(page) ? .there : .missing
        }
    }

    /// Waits until something comes on the urgent lane, or the push brings a page that was asked for, and places it.
    ///
    /// - Returns: false if there is no lane any more.
    private func receive(_ state: inout State) throws(PlacementFailure) -> Bool {
        guard let lane = state.lane else { return false }
        do throws(SystemError) {
            try lane.socket.stream.waitToReceive(or: pushed.flag)
        } catch {
            // The receiver tells it.
            lane.shutdown()
        }
        if pushed.flag.isRaised {
            pushed.flag.clear()
            return true
        }
        guard try state.receiver?.receive(onEvent) == true else {
            unlink(&state)
            return false
        }
        return true
    }

    /// The lane has ended. What is waited for is asked for again on the next.
    private func unlink(_ state: inout State) {
        state.receiver = nil
        state.lane = nil
        state.requests.use(nil)
        isLinked.clear()
    }
}
