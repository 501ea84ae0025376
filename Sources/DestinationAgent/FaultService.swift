import LinuxSystem
import PageProtocol
import Synchronization

/// A thread that reads faults, asks for their pages on an urgent lane of its own, and places them.
///
/// The same thread does both ways: a fault costs no more wake-ups than it must, and whatever has come in the meantime is
/// answered by one call. Several of them read the same userfaultfd: each fault wakes one that has nothing to do.
final class FaultService: Sendable {
    private enum Life {
        case idle, serving, ended
    }

    private struct State {
        var lane: AttachedLane?
        var life = Life.idle
        var isStopping = false
        /// How often a lane was given, and how many of these the thread has turned to.
        var (given, turned) = (0, 0)
    }

    private let memory: ArrivingMemory
    private let policy: any LooksAhead
    private let onEvent: @Sendable (DestinationAgent.Event) -> Void
    private let state = Mutex(State())
    private let flag: EventDescriptor
    /// Raised when the thread has turned to the lane that it was given, or has ended.
    private let turned: EventDescriptor

    init(
        memory: ArrivingMemory,
        policy: any LooksAhead,
        onEvent: @escaping @Sendable (DestinationAgent.Event) -> Void
    ) throws(SystemError) {
        self.memory = memory
        self.policy = policy
        self.onEvent = onEvent
        flag = try EventDescriptor()
        turned = try EventDescriptor()
    }

    /// From now on requests go to this lane; nil lets faults wait. The one used before has been shut down. Returns at once:
    /// the thread turns to the lane when it can.
    func use(_ lane: AttachedLane?) {
        state.withLock { state in
            state.lane = lane
            state.given += 1
        }
        flag.raise()
    }

    /// Waits until the thread has turned to what it was given last: nothing more is placed from a lane before. Called by
    /// one thread at a time.
    func waitUntilTurned() {
        while true {
            turned.clear()
            if state.withLock({ $0.life != .serving || $0.turned == $0.given }) { return }
            turned.wait()
        }
    }

    /// Whether the thread has ended by itself: another is to run.
    var hasEnded: Bool { state.withLock { $0.life == .ended && !$0.isStopping } }

    /// Lets the thread end.
    func stop() {
        state.withLock { $0.isStopping = true }
        flag.raise()
    }

    /// To be called before ``run()``, by whoever makes the thread for it.
    func begin() {
        state.withLock { $0.life = .serving }
    }

    /// No thread could be made.
    func fail() {
        state.withLock { $0.life = .ended }
    }

    func run() {
        // A lane may have been given before.
        flag.raise()
        let reason: String?
        do {
            try serve(policy)
            reason = nil
        } catch {
            reason = "\(error)"
        }
        state.withLock { $0.life = .ended }
        turned.raise()
        // The last: whoever hears it may have another thread run.
        if let reason { onEvent(.failed(reason: reason)) }
    }

    /// Places what has come.
    ///
    /// - Returns: false if nothing more comes from this lane: it has ended, or a page could not be placed, which other
    ///   lanes bring again.
    @inline(__always)
    private func receive(from receiver: inout LaneReceiver?) -> Bool {
        do throws(PlacementFailure) {
            return try receiver?.receive(onEvent) ?? true
        } catch {
            onEvent(.failed(reason: error.reason))
            return false
        }
    }

    private func serve(_ policy: some LooksAhead) throws {
        var requests = RequestBatch(memory: memory)
        var reader = FaultReader(memory)
        var unanswered = UnansweredFaults(of: memory, onEvent)
        var ready = try FaultWait(for: memory.userfaultfd, or: flag)
        if let removals = memory.removals { try ready.watch(removals.areFaultsWaiting) }
        var receiver: LaneReceiver?
        var turnedTo = 0
        while true {
            let found = try ready.wait(milliseconds: min(requests.interval, unanswered.interval))
            if found.contains(.flag) {
                flag.clear()
                let state = state.withLock { $0 }
                if state.isStopping { return }
                // The flag may have been raised for a lane that was seen before.
                if state.given == turnedTo { continue }
                turnedTo = state.given
                receiver = state.lane.map { LaneReceiver($0, memory: memory) }
                requests.use(state.lane)
                if state.lane?.isLastToTurn() == true { requests.beginToAskAgain() }
                // Before more faults are read, which are asked for anyway.
                requests.askAgain()
                if let lane = state.lane { try ready.watch(lane.socket) } else { try ready.watchNoSocket() }
                self.state.withLock { $0.turned = turnedTo }
                turned.raise()
                continue
            }
            if found.contains(.socket), !receive(from: &receiver) {
                receiver = nil
                requests.use(nil)
                try ready.watchNoSocket()
            }
            requests.askAgain()
            if found.contains(.events) {
                try reader.read()
                let now = MonotonicClock.now()
                for index in reader.faults.indices {
                    let fault = reader.faults[index]
                    do throws(PlacementFailure) {
                        try requests.add(address: fault.address, thread: fault.thread, now: now)
                    } catch {
                        unanswered.note(fault.address, because: error)
                    }
                }
                policy.lookAhead(&requests)
                requests.send()
            }
            unanswered.raiseAgain()
            if found.contains(.hangUp) { throw PlacementFailure.gone }
        }
    }
}

/// Reads faults, into the same memory again and again.
private struct FaultReader: ~Copyable {
    private let memory: ArrivingMemory
    private var events = Userfaultfd.EventBuffer(capacity: RequestBatch.capacity)
    /// Those that were read last.
    private(set) var faults: [PageFault] = []

    init(_ memory: ArrivingMemory) {
        self.memory = memory
        faults.reserveCapacity(RequestBatch.capacity)
    }

    @inline(__always)
    mutating func read() throws(SystemError) {
        faults.removeAll(keepingCapacity: true)
        if let removals = memory.removals { return try removals.takeFaults(of: memory, into: &faults) }
        try memory.userfaultfd.read(into: &events)
        for index in 0..<events.count {
            guard case .fault(let address, let thread) = events[index] else { continue }
            faults.append(PageFault(address: address, thread: thread))
        }
    }
}
