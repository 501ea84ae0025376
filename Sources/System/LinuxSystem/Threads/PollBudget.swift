/// How long a thread polls before it sleeps: the decisions alone, without a clock.
///
/// A thread that sleeps leaves its processor idle, and an idle processor needs 20 to 90 µs to wake up on a virtual
/// machine, or to leave a deep sleep state on bare metal. A thread that polls sees its event at once. The budget follows
/// the waits before, as the kernel's halt polling does: the budget grows when a thread slept and woke up soon, and shrinks
/// when nothing came for longer than the limit. Long waits are therefore not polled at all.
///
/// A thread that polls yields its processor between two looks. If other threads then keep the processor for long, no
/// processor is idle: polling saves nothing, and a thread that sleeps would preempt the others when it wakes up. The
/// thread then sleeps at once in all waits for some time, which doubles each time.
package struct PollBudget: Hashable, Sendable {
    /// The longest time to poll for one event, unless the user chooses another.
    ///
    /// A wait that ends within this time is polled; threads that wait longer leave the processor idle.
    package static let usualLimit = Duration.microseconds(400)
    /// The limits that users may choose: beyond them, a thread would keep a processor busy for guests that rarely touch
    /// a page.
    package static let limits = Duration.zero ... .milliseconds(10)
    /// The shortest time that is polled, in nanoseconds; a shorter budget is 0.
    private static let shortest: UInt64 = 8_000
    /// The time without the processor, in nanoseconds, that shows that other threads want the processor.
    ///
    /// The kernel's slices are longer, unless a thread asks for less.
    static let crowdedGap: UInt64 = 500_000
    /// The first and the longest rest after a crowded wait, in nanoseconds.
    static let (firstRest, longestRest): (UInt64, UInt64) = (10_000_000, 1_600_000_000)

    /// What a thread waits for.
    enum Awaited: Hashable {
        /// The answer to a request.
        case answer
        /// Anything else, such as the next request, which often comes much later.
        case event
    }

    /// The longest time to poll in nanoseconds; 0 if the thread never polls.
    let limit: UInt64
    /// The times to poll in the next waits, in nanoseconds.
    private var (answers, events): (UInt64, UInt64) = (0, 0)
    /// Until when the thread sleeps at once, in nanoseconds of ``MonotonicClock``.
    private var restsUntil: UInt64 = 0
    private var nextRest = firstRest

    /// Makes a budget that has seen no wait: the thread sleeps at once in the first one.
    ///
    /// - Parameter limit: the longest time to poll for one event; zero to never poll.
    package init(limit: Duration) {
        self.limit = UInt64(max(0, limit / .nanoseconds(1)))
    }

    private subscript(awaited: Awaited) -> UInt64 {
        get {
            switch awaited {
            case .answer: answers
            case .event: events
            }
        }
        set {
            switch awaited {
            case .answer: answers = newValue
            case .event: events = newValue
            }
        }
    }

    /// The time to poll in a wait that begins now, in nanoseconds; 0 to sleep at once.
    func time(for awaited: Awaited, now: UInt64) -> UInt64 {
        now < restsUntil ? 0 : self[awaited]
    }

    /// Reports that the event came while the thread polled.
    mutating func polled() {
        nextRest = max(PollBudget.firstRest, nextRest - nextRest / 32)
    }

    /// Reports that the thread slept, and how long it waited in all, in nanoseconds.
    mutating func slept(for awaited: Awaited, waited: UInt64) {
        let time = self[awaited]
        if waited <= limit {
            self[awaited] = min(limit, max(time * 2, waited))
        } else {
            self[awaited] = time / 2 < PollBudget.shortest ? 0 : time / 2
        }
    }

    /// Reports that other threads kept the processor for longer than ``crowdedGap`` while the thread polled.
    mutating func crowded(now: UInt64) {
        restsUntil = now + nextRest
        nextRest = min(PollBudget.longestRest, nextRest * 2)
    }
}

extension PollBudget {
    /// Waits for an event: polls for as long as the budget says, and then sleeps.
    ///
    /// - Parameters:
    ///   - awaited: what the thread waits for.
    ///   - look: looks for the event without waiting; nil if there is none.
    ///   - sleep: waits for the event in the kernel.
    @inline(__always)
    mutating func wait<Found>(
        for awaited: Awaited,
        _ look: () throws(SystemError) -> Found?,
        orSleep sleep: () throws(SystemError) -> Found
    ) throws(SystemError) -> Found {
        guard limit > 0 else { return try sleep() }
        let began = MonotonicClock.now()
        let end = began + time(for: awaited, now: began)
        var now = began
        while now < end {
            if let found = try look() {
                polled()
                return found
            }
            JoinedThread.yield()
            let next = MonotonicClock.now()
            if next - now > PollBudget.crowdedGap {
                crowded(now: next)
                return try sleep()
            }
            now = next
        }
        let found = try sleep()
        slept(for: awaited, waited: MonotonicClock.now() - began)
        return found
    }
}
