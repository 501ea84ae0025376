package import LinuxSystem
import Synchronization

/// The events of a session in the order of their arrival, and the timers that add events later.
///
/// All timers of a session use one clock, so that a test can advance that clock instead of waiting.
package final class EventQueue<Event: Sendable>: Sendable {
    fileprivate struct State {
        var events: [Event] = []
        /// The number of the first events that were taken.
        var taken = 0
        var isFinished = false
        var receiver: Receiver?
        /// The task that waits in ``next()``.
        var reader: CheckedContinuation<Void, Never>?
    }

    /// The receiver of the events, with its thread.
    fileprivate struct Receiver {
        let thread: ActorThread
        let handle: @Sendable (Event?) -> Void
        /// Whether the thread was asked to look at the events, and has not begun to.
        var isAsked = false
    }

    private let clock: any Clock<Duration>
    private let state = Mutex(State())

    /// Makes an empty queue.
    ///
    /// - Parameter clock: the clock of the timers.
    package init(clock: any Clock<Duration> = SuspendingClock()) {
        self.clock = clock
    }

    /// Adds an event.
    ///
    /// An event that is added after ``finish()`` is dropped.
    package func add(_ event: Event) {
        update { if !$0.isFinished { $0.events.append(event) } }
    }

    /// Adds an event after a time.
    ///
    /// The event may arrive too late to matter, so it carries the number of the link, attempt or wait that it is for.
    ///
    /// - Parameters:
    ///   - event: the event.
    ///   - time: the time from now.
    package func add(_ event: Event, after time: Duration) {
        let wait = EventQueue.wait(on: clock, for: time)
        Task(priority: .high) { [weak self] in
            await wait()
            self?.add(event)
        }
    }

    /// Ends the queue: the events that were added before are the last ones.
    package func finish() {
        update { $0.isFinished = true }
    }

    /// Handles all events on a thread, those that were added before and those that follow.
    ///
    /// The thread runs the handler at once. A task that waits for an event would first be resumed by a thread that all
    /// tasks share, and move to its actor's thread from there.
    ///
    /// - Parameters:
    ///   - thread: the thread, which calls `handle`.
    ///   - handle: receives each event, and nil after the last one; is kept until then.
    package func deliver(on thread: ActorThread, to handle: @escaping @Sendable (Event?) -> Void) {
        update { $0.receiver = Receiver(thread: thread, handle: handle) }
    }

    /// The next event, for one task that handles them all; nil after the last one.
    package func next() async -> Event? {
        while true {
            let (event, isOver) = state.withLock { $0.take() }
            if event != nil || isOver { return event }
            await withCheckedContinuation { continuation in
                // An event may have come meanwhile.
                let mayWait = state.withLock { state in
                    precondition(state.reader == nil, "one task waits for events")
                    guard state.events.count == state.taken, !state.isFinished else { return false }
                    state.reader = continuation
                    return true
                }
                if !mayWait { continuation.resume() }
            }
        }
    }

    /// Changes the state, and lets whoever handles the events look at it.
    private func update(_ change: (inout State) -> Void) {
        let (reader, thread) = state.withLock { state in
            change(&state)
            let isAsked = state.receiver?.isAsked ?? true
            state.receiver?.isAsked = true
            return (state.reader.take(), isAsked ? nil : state.receiver?.thread)
        }
        reader?.resume()
        thread?.run { [self] in handleAll() }
    }

    /// Lets the receiver handle the events that wait.
    private func handleAll() {
        state.withLock { $0.receiver?.isAsked = false }
        while true {
            let (event, isOver, handle) = state.withLock { state in
                let (event, isOver) = state.take()
                defer { if isOver { state.receiver = nil } }
                return (event, isOver, state.receiver?.handle)
            }
            guard event != nil || isOver else { return }
            handle?(event)
            if isOver { return }
        }
    }

    /// Fixes the deadline, and returns the wait for it: the clock may advance before the wait begins.
    private static func wait<C: Clock<Duration>>(
        on clock: C,
        for time: Duration
    ) -> @Sendable () async -> Void {
        let deadline = clock.now.advanced(by: time)
        return {
            // `sleep` fails only if its task is cancelled, and no task of a timer is.
            try? await clock.sleep(until: deadline, tolerance: nil)
        }
    }
}

extension EventQueue.State {
    /// The first event, or whether there is none and no more will come.
    fileprivate mutating func take() -> (event: Event?, isOver: Bool) {
        if taken == events.count {
            events.removeAll(keepingCapacity: true)
            taken = 0
            return (nil, isFinished)
        }
        defer { taken += 1 }
        return (events[taken], false)
    }
}
