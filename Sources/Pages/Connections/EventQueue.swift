/// The events of a session in the order of their arrival, and the timers that add events later.
///
/// All timers of a session use one clock, so that a test can advance that clock instead of waiting.
package struct EventQueue<Event: Sendable>: Sendable {
    private let clock: any Clock<Duration>
    private let stream: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation

    /// Makes an empty queue.
    ///
    /// - Parameter clock: the clock of the timers.
    package init(clock: any Clock<Duration> = SuspendingClock()) {
        self.clock = clock
        (stream, continuation) = AsyncStream.makeStream()
    }

    /// Adds an event.
    ///
    /// An event that is added after ``finish()`` is dropped.
    package func add(_ event: Event) {
        continuation.yield(event)
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
        Task(priority: .high) { [continuation] in
            await wait()
            continuation.yield(event)
        }
    }

    /// Ends the queue: the events that were added before are the last ones.
    package func finish() {
        continuation.finish()
    }

    /// The events, for one loop that handles them.
    package var all: some AsyncSequence<Event, Never> & Sendable { stream }

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
