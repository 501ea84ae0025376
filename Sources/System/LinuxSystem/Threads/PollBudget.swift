/// How long a thread polls before it sleeps: the decisions alone, without a clock.
///
/// A thread that sleeps leaves its processor idle, and an idle processor needs 20 to 90 µs to wake up on a virtual
/// machine, or to leave a deep sleep state on bare metal. A thread that polls sees its event at once. The budget follows
/// the waits before, as the kernel's halt polling does: the budget grows when a thread slept and woke up soon, and shrinks
/// when nothing came for longer than the limit.
///
/// If none of the latest waits was short, the thread first naps, and polls only when an event can be expected. An event
/// that comes earlier ends the nap. Long waits of about equal length are therefore polled for their last part only, and
/// long waits of all lengths not at all.
///
/// A thread that polls yields its processor between two looks. If other threads then keep the processor for long, no
/// processor is idle: polling saves nothing, and a thread that sleeps would preempt the others when it wakes up. The
/// thread then sleeps at once in all waits for some time, which doubles each time.
package struct PollBudget: Hashable, Sendable {
    /// The longest time to poll for one event, unless the user chooses another.
    package static let usualLimit = Duration.microseconds(400)
    /// The limits that users may choose.
    ///
    /// With a larger limit, a thread would keep a processor busy for guests that rarely
    /// touch a page.
    package static let limits = Duration.zero ... .milliseconds(10)
    /// The shortest time to poll, in nanoseconds, if the limit allows it; a budget that shrinks further is 0.
    private static let shortest: UInt64 = 8_000
    /// A nap ends this long before an event is expected, in nanoseconds.
    ///
    /// An idle processor needs most of this time to
    /// wake up.
    static let lead: UInt64 = 60_000
    /// The shortest and the longest nap in nanoseconds.
    ///
    /// Waits that need a longer nap are not polled.
    static let naps: ClosedRange<UInt64> = 40_000...10_000_000
    /// The time without the processor, in nanoseconds, that shows that other programs want the processor.
    ///
    /// Programs that compute have slices of more than a millisecond. A guest's thread that works for a shorter time
    /// between two faults does not count.
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

    /// What a thread does in a wait before it sleeps, in nanoseconds.
    struct Plan: Hashable {
        /// The time to nap first.
        var nap: UInt64 = 0
        /// The time to poll then.
        var poll: UInt64 = 0
    }

    /// What the waits of one kind have shown, in nanoseconds.
    private struct Record: Hashable {
        /// The number of waits after which the shortest one is found anew.
        private static let span = 16

        /// The time to poll in the next wait.
        var time: UInt64 = 0
        /// The shortest of the latest waits; 0 before there were enough.
        private(set) var shortest: UInt64 = 0
        private var candidate = UInt64.max
        private var count = 0

        /// The part of a wait in which no event comes, as far as the latest waits show.
        var nap: UInt64 {
            let nap = shortest > PollBudget.lead ? shortest - PollBudget.lead : 0
            return PollBudget.naps.contains(nap) ? nap : 0
        }

        mutating func note(_ waited: UInt64) {
            shortest = min(shortest, waited)
            candidate = min(candidate, waited)
            count += 1
            guard count == Record.span else { return }
            (shortest, candidate, count) = (candidate, .max, 0)
        }
    }

    /// The longest time to poll in nanoseconds; 0 if the thread never polls.
    let limit: UInt64
    private var (answers, events) = (Record(), Record())
    /// Until when the thread sleeps at once, in nanoseconds of ``MonotonicClock``.
    private var restsUntil: UInt64 = 0
    private var nextRest = firstRest

    /// Makes a budget that has seen no wait: the thread sleeps at once in the first one.
    ///
    /// - Parameter limit: the longest time to poll for one event; zero to never poll.
    package init(limit: Duration) {
        self.limit = UInt64(max(0, limit / .nanoseconds(1)))
    }

    private subscript(awaited: Awaited) -> Record {
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

    /// Decides what to do in a wait that begins now; nothing if the thread sleeps at once.
    func plan(for awaited: Awaited, now: UInt64) -> Plan {
        let record = self[awaited]
        guard now >= restsUntil, record.time > 0 else { return Plan() }
        return Plan(nap: record.nap, poll: record.time)
    }

    /// Reports that the event came during the nap or while the thread polled, and how long the thread waited in all, in
    /// nanoseconds.
    mutating func polled(for awaited: Awaited, waited: UInt64) {
        self[awaited].note(waited)
        nextRest = max(PollBudget.firstRest, nextRest - nextRest / 32)
    }

    /// Reports that the event came while the thread slept, and how long the thread waited in all, in nanoseconds.
    mutating func slept(for awaited: Awaited, waited: UInt64) {
        let (time, nap) = (self[awaited].time, self[awaited].nap)
        let rest = waited > nap ? waited - nap : 0
        if rest <= limit {
            self[awaited].time = min(limit, max(time * 2, rest, PollBudget.shortest))
        } else {
            self[awaited].time = time / 2 < PollBudget.shortest ? 0 : time / 2
        }
        self[awaited].note(waited)
    }

    /// Reports that other threads kept the processor for longer than ``crowdedGap`` while the thread polled.
    mutating func crowded(now: UInt64) {
        restsUntil = now + nextRest
        nextRest = min(PollBudget.longestRest, nextRest * 2)
    }
}

extension PollBudget {
    /// Waits for an event: naps and polls for as long as the budget says, and then sleeps.
    ///
    /// - Parameters:
    ///   - awaited: what the thread waits for.
    ///   - longest: the longest time to wait, in nanoseconds; nil for no limit, or for one that `sleep` has itself.
    ///   - look: looks for the event for a number of nanoseconds, or without waiting if that is 0; nil if there is none.
    ///   - sleep: waits for the event in the kernel for a number of nanoseconds, or without a limit if that is nil; nil
    ///     if the time is over.
    /// - Returns: nil if the time is over.
    @inline(__always)
    mutating func wait<Found>(
        for awaited: Awaited,
        within longest: UInt64? = nil,
        _ look: (_ nanoseconds: UInt64) throws(SystemError) -> Found?,
        orSleep sleep: (_ nanoseconds: UInt64?) throws(SystemError) -> Found?
    ) throws(SystemError) -> Found? {
        guard limit > 0 else { return try sleep(longest) }
        let began = MonotonicClock.now()
        var plan = plan(for: awaited, now: began)
        if let longest, plan.nap + plan.poll > longest { plan = Plan() }
        var now = began
        if plan.nap > 0 {
            let found = try look(plan.nap)
            now = MonotonicClock.now()
            if let found {
                // A nap may end late, while the processor wakes up. The event then came before the end that was asked
                // for, and the next nap is shorter.
                polled(for: awaited, waited: min(plan.nap, now - began))
                return found
            }
        }
        let end = now + plan.poll
        var isCrowded = false
        while now < end, !isCrowded {
            if let found = try look(0) {
                polled(for: awaited, waited: now - began)
                return found
            }
            JoinedThread.yield()
            let next = MonotonicClock.now()
            isCrowded = next - now > PollBudget.crowdedGap
            now = next
        }
        if isCrowded { crowded(now: now) }
        // A wait that ran out of time shows nothing about events. A crowded wait was long because of other programs.
        guard let found = try sleep(longest.map { $0 - min($0, now - began) }) else { return nil }
        if !isCrowded { slept(for: awaited, waited: MonotonicClock.now() - began) }
        return found
    }
}
