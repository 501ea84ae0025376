import LinuxSystem
import PageProtocol
import Synchronization

/// A thread that reads faults, asks for their pages on an urgent lane of its own, and places them.
///
/// The same thread does both ways: a fault costs no more wake-ups than it must, and whatever has come in the meantime is
/// answered by one call. Several of them read the same userfaultfd: each fault wakes one that has nothing to do.
final class FaultService: Sendable {
    private struct State {
        var lane: AttachedLane?
        var asksAgain = false
        /// Whether the thread is there to turn to another lane.
        var isServing = false
        var isStopping = false
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

    /// From now on requests go to this lane; nil lets faults wait. The one used before has been shut down; when this
    /// returns, nothing more is placed from it. Called by one thread at a time.
    ///
    /// - Parameter asksAgain: whether all that is waited for is asked for on it, also what other services have read while
    ///   they had no lane: they have theirs before.
    func use(_ lane: AttachedLane?, asksAgain: Bool) {
        turned.clear()
        let isServing = state.withLock { state in
            state.lane = lane
            state.asksAgain = asksAgain
            return state.isServing
        }
        guard isServing else { return }
        flag.raise()
        turned.wait()
    }

    /// To be called before any service runs: nobody has read a fault that would have to be asked for again.
    func prepare() {
        turned.clear()
        state.withLock { $0.asksAgain = false }
    }

    /// Waits until the thread serves: from then on a lane that is given is turned to before ``use(_:asksAgain:)`` returns.
    func waitUntilServing() {
        turned.wait()
    }

    /// Lets the thread end.
    func stop() {
        state.withLock { $0.isStopping = true }
        flag.raise()
    }

    func run() {
        state.withLock { $0.isServing = true }
        // A lane may have been given before.
        flag.raise()
        turned.raise()
        do {
            try serve(policy)
        } catch {
            onEvent(.failed(reason: "\(error)"))
        }
        state.withLock { $0.isServing = false }
        turned.raise()
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
        var ready = try FaultWait(for: memory.userfaultfd, or: flag)
        if let removals = memory.removals { try ready.watch(removals.areFaultsWaiting) }
        var receiver: LaneReceiver?
        while true {
            let found = try ready.wait()
            if found.contains(.flag) {
                flag.clear()
                let state = state.withLock { $0 }
                if state.isStopping { return }
                receiver = state.lane.map { LaneReceiver($0, memory: memory) }
                requests.use(state.lane)
                if state.asksAgain { requests.askAgain() }
                if let lane = state.lane { try ready.watch(lane.socket) } else { try ready.watchNoSocket() }
                turned.raise()
                continue
            }
            if found.contains(.socket), !receive(from: &receiver) {
                receiver = nil
                requests.use(nil)
                try ready.watchNoSocket()
            }
            if found.contains(.events) {
                try reader.read()
                let now = MonotonicClock.now()
                for index in reader.faults.indices {
                    let fault = reader.faults[index]
                    try requests.add(address: fault.address, thread: fault.thread, now: now)
                }
                policy.lookAhead(&requests)
                requests.send()
            }
            if found.contains(.hangUp) {
                onEvent(.failed(reason: "the process whose memory is served has ended"))
                return
            }
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
