import LinuxSystem
import PageProtocol
import Synchronization

/// A thread that reads faults, requests their pages on an urgent lane of its own, and places the pages.
///
/// One thread both requests and places, so that a fault costs no more wake-ups than necessary, and all that arrived
/// meanwhile is handled by one call. Several such threads may read one userfaultfd: each fault wakes one idle thread.
final class FaultService: Sendable {
    private enum Life {
        case idle, serving, ended
    }

    private struct State {
        var lane: AttachedLane?
        var life = Life.idle
        var isStopping = false
        /// The number of times that a lane was given, and how many of them the thread has switched to.
        var (given, turned) = (0, 0)
    }

    private let memory: ArrivingMemory
    private let policy: any LooksAhead
    private let polling: Duration
    /// Whether no other thread reads faults of this memory.
    ///
    /// If several threads do, an event wakes one of those that sleep, whether or not another one polls. So they poll
    /// only for answers, which come on a lane of their own.
    private let isAlone: Bool
    private let onEvent: @Sendable (PageFetcher.Event) -> Void
    private let state = Mutex(State())
    private let flag: EventDescriptor
    /// Raised when the thread has switched to the newest lane, or has ended.
    private let turned: EventDescriptor

    init(
        memory: ArrivingMemory,
        policy: any LooksAhead,
        polling: Duration,
        isAlone: Bool = true,
        onEvent: @escaping @Sendable (PageFetcher.Event) -> Void
    ) throws(SystemError) {
        self.memory = memory
        self.policy = policy
        self.polling = polling
        self.isAlone = isAlone
        self.onEvent = onEvent
        flag = try EventDescriptor()
        turned = try EventDescriptor()
    }

    /// Gives the thread another lane for its requests; nil lets faults wait.
    ///
    /// The caller has shut the earlier lane down. The call returns at once, and the thread switches when it can.
    func use(_ lane: AttachedLane?) {
        state.withLock { state in
            state.lane = lane
            state.given += 1
        }
        flag.raise()
    }

    /// Waits until the thread has switched to the newest lane, so that no page of an earlier lane is placed any more.
    ///
    /// Only one thread at a time may call this.
    func waitUntilTurned() {
        while true {
            turned.clear()
            if state.withLock({ $0.life != .serving || $0.turned == $0.given }) { return }
            turned.wait()
        }
    }

    /// Whether the thread has ended because of an error, so that another must be started.
    var hasEnded: Bool { state.withLock { $0.life == .ended && !$0.isStopping } }

    /// Asks the thread to exit.
    func stop() {
        state.withLock { $0.isStopping = true }
        flag.raise()
    }

    /// Marks the service as running; the caller then starts a thread that calls ``run()``.
    func begin() {
        state.withLock { $0.life = .serving }
    }

    /// Marks the service as ended, because its thread could not be started.
    func fail() {
        state.withLock { $0.life = .ended }
    }

    func run() {
        // A lane may have been given before the thread started.
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
        // The event comes last, since its receiver may start another thread for this service.
        if let reason { onEvent(.failed(reason: reason)) }
    }

    /// Places the pages that have arrived on the lane.
    ///
    /// - Returns: false if nothing more can be received from this lane, because it has ended or because a page could
    ///   not be placed; other lanes bring such a page again.
    @inline(__always)
    private func receive(
        from receiver: inout LaneReceiver?,
        of lane: AttachedLane?,
        _ requests: inout RequestBatch
    ) -> Bool {
        do throws(PlacementFailure) {
            defer { requests.send() }
            return try receiver?.receive(onLeft: { requests.askAgain($0, region: $1) }) ?? true
        } catch {
            lane?.tell(.placementFailed(reason: error.reason))
            return false
        }
    }

    private func serve(_ policy: some LooksAhead) throws {
        var requests = RequestBatch(memory: memory)
        var reader = FaultReader(memory)
        var unanswered = UnansweredFaults(of: memory, onEvent)
        var ready = try FaultWait(for: memory.userfaultfd, or: flag, polling: polling)
        if let events = memory.events { try ready.watch(events.areFaultsWaiting) }
        var lane: AttachedLane?
        var receiver: LaneReceiver?
        var turnedTo = 0
        while true {
            let interval = min(requests.interval, unanswered.interval)
            let isAnswerDue = requests.isAnswerDue
            let found = try ready.wait(
                milliseconds: interval == .max ? nil : interval,
                isAnswerDue: isAnswerDue,
                polls: (isAlone || isAnswerDue) && !memory.bulk.isUnderWay,
                take: { () throws(SystemError) -> FaultWait.Ready? in
                    guard let isThere = try isAnswerDue ? receiver?.take() : reader.take() else { return nil }
                    return isThere ? (isAnswerDue ? .socket : .events) : []
                }
            )
            if found.contains(.flag) {
                flag.clear()
                let state = state.withLock { $0 }
                if state.isStopping { return }
                // The flag may have been raised for a lane that was already seen.
                if state.given == turnedTo { continue }
                turnedTo = state.given
                lane = state.lane
                receiver = lane.map { LaneReceiver($0, memory: memory) }
                requests.use(lane)
                if lane?.isLastToTurn() == true { requests.beginToAskAgain() }
                // Wanted pages are requested first; the faults that are read next are requested in any case.
                requests.askAgain()
                if let lane { try ready.watch(lane.socket) } else { try ready.watchNoSocket() }
                self.state.withLock { $0.turned = turnedTo }
                turned.raise()
                continue
            }
            if found.contains(.socket) { requests.noteAnswer() }
            if found.contains(.socket), !receive(from: &receiver, of: lane, &requests) {
                receiver = nil
                requests.use(nil)
                try ready.watchNoSocket()
            }
            requests.askAgain()
            if found.contains(.events) {
                try reader.read()
                let now = MonotonicClock.now()
                for index in reader.faults.indices {
                    let event = reader.faults[index]
                    guard var fault = memory.fault(at: event.address, thread: event.thread) else { continue }
                    fault.kind = event.kind
                    do throws(PlacementFailure) {
                        try requests.add(fault, now: now)
                    } catch {
                        unanswered.note(fault, because: error)
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

/// Reads faults, reusing the same memory for every read.
private struct FaultReader: ~Copyable {
    private let memory: ArrivingMemory
    private var events = Userfaultfd.EventBuffer(capacity: RequestBatch.capacity)
    /// The faults of the latest read.
    private(set) var faults: [PageFault] = []
    /// Whether ``take()`` has read events that ``read()`` has not turned into faults.
    private var isTaken = false
    /// Whether a wait has found events in the userfaultfd: for a blocking one, the kernel reports an error instead.
    private var isNonBlocking = false

    init(_ memory: ArrivingMemory) {
        self.memory = memory
        faults.reserveCapacity(RequestBatch.capacity)
    }

    /// Reads events without waiting; the next ``read()`` then turns them into faults.
    ///
    /// - Returns: whether there were any; nil if only a wait can tell.
    @inline(__always)
    mutating func take() throws(SystemError) -> Bool? {
        guard isNonBlocking else { return nil }
        guard !isTaken else { return true }
        try memory.userfaultfd.read(into: &events)
        isTaken = events.count > 0
        return isTaken
    }

    @inline(__always)
    mutating func read() throws(SystemError) {
        faults.removeAll(keepingCapacity: true)
        if let events = memory.events { return try events.takeFaults(of: memory, into: &faults) }
        if !isTaken { try memory.userfaultfd.read(into: &events) }
        (isTaken, isNonBlocking) = (false, true)
        for index in 0..<events.count {
            guard case .fault(let address, let thread, let kind) = events[index] else { continue }
            faults.append(PageFault(address: address, thread: thread, kind: kind))
        }
    }
}
