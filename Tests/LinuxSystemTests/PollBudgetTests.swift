import Testing

@testable import LinuxSystem

/// How long a thread polls before it sleeps.
@Suite struct PollBudgetTests {
    private let limit: UInt64 = 400_000

    private func budget() -> PollBudget { PollBudget(limit: .nanoseconds(Int64(limit))) }

    @Test func `the first wait sleeps at once, and the time to poll grows with short sleeps`() {
        var budget = budget()
        #expect(budget.plan(for: .event, now: 0).poll == 0)
        budget.slept(for: .event, waited: 60_000)
        #expect(budget.plan(for: .event, now: 0).poll == 60_000)
        budget.slept(for: .event, waited: 61_000)
        #expect(budget.plan(for: .event, now: 0).poll == 120_000)
        for _ in 0..<10 { budget.slept(for: .event, waited: 200_000) }
        #expect(budget.plan(for: .event, now: 0).poll == limit)
    }

    @Test func `a wait as long as the limit is worth polling, and a longer one is not`() {
        var budget = budget()
        budget.slept(for: .event, waited: limit)
        #expect(budget.plan(for: .event, now: 0).poll == limit)
        budget.slept(for: .event, waited: limit + 1)
        #expect(budget.plan(for: .event, now: 0).poll == limit / 2)
        for _ in 0..<6 { budget.slept(for: .event, waited: 1_000_000_000) }
        #expect(budget.plan(for: .event, now: 0).poll == 0)
        budget.slept(for: .event, waited: 1_000_000_000)
        #expect(budget.plan(for: .event, now: 0).poll == 0)
    }

    @Test func `long waits for events leave the time to poll for answers as it was`() {
        var budget = budget()
        budget.slept(for: .answer, waited: 30_000)
        for _ in 0..<10 { budget.slept(for: .event, waited: 1_000_000_000) }
        #expect(budget.plan(for: .answer, now: 0).poll == 30_000)
        #expect(budget.plan(for: .event, now: 0).poll == 0)
    }

    @Test func `a budget without a limit never polls`() {
        var budget = PollBudget(limit: .zero)
        for waited: UInt64 in [0, 1, 1_000] { budget.slept(for: .answer, waited: waited) }
        #expect(budget.plan(for: .answer, now: 0).poll == 0)
    }

    @Test func `a thread that had to share its processor sleeps at once for longer each time`() {
        var budget = budget()
        budget.slept(for: .answer, waited: 50_000)
        var now: UInt64 = 0
        var rest = PollBudget.firstRest
        for _ in 0..<10 {
            budget.crowded(now: now)
            #expect(budget.plan(for: .answer, now: now + rest - 1) == PollBudget.Plan())
            #expect(budget.plan(for: .answer, now: now + rest).poll == 50_000)
            now += rest
            rest = min(rest * 2, PollBudget.longestRest)
        }
        #expect(rest == PollBudget.longestRest)
        // Waits that were polled undisturbed make the next rest short again.
        for _ in 0..<1000 { budget.polled(for: .answer, waited: 10_000) }
        budget.crowded(now: now)
        #expect(budget.plan(for: .answer, now: now + PollBudget.firstRest).poll == 50_000)
    }

    @Test func `a thread naps through the part of its waits in which nothing has come, and polls the rest`() {
        var budget = budget()
        for waited: UInt64 in 1...16 { budget.slept(for: .event, waited: 190_000 + waited * 1_000) }
        #expect(budget.plan(for: .event, now: 0).nap == 191_000 - PollBudget.lead)
        // A shorter wait shortens the nap at once, and a longer one does not change it.
        budget.polled(for: .event, waited: 150_000)
        budget.polled(for: .event, waited: 390_000)
        #expect(budget.plan(for: .event, now: 0).nap == 150_000 - PollBudget.lead)
        // Without a short wait, the nap grows again after some waits.
        for _ in 0..<32 { budget.polled(for: .event, waited: 300_000) }
        #expect(budget.plan(for: .event, now: 0).nap == 300_000 - PollBudget.lead)
        // A nap of a few microseconds would cost more than it saves.
        budget.polled(for: .event, waited: PollBudget.lead + PollBudget.naps.lowerBound - 1)
        #expect(budget.plan(for: .event, now: 0).nap == 0)
    }

    @Test func `long waits of equal length are polled at their end, and long waits of all lengths not at all`() {
        var budget = budget()
        for _ in 0..<20 { budget.slept(for: .event, waited: 2_000_000) }
        let plan = budget.plan(for: .event, now: 0)
        #expect(plan.nap == 2_000_000 - PollBudget.lead)
        #expect(plan.poll >= PollBudget.lead && plan.poll <= limit)
        for waited: UInt64 in 0..<64 { budget.slept(for: .event, waited: 500_000 + waited * 7_919 % 64 * 500_000) }
        #expect(budget.plan(for: .event, now: 0) == PollBudget.Plan())
    }

    @Test func `a nap that ends after the event shortens the next one, however late it ends`() throws {
        var budget = budget()
        for _ in 0..<20 { budget.slept(for: .event, waited: 390_000) }
        let nap = budget.plan(for: .event, now: 0).nap
        #expect(nap == 390_000 - PollBudget.lead)
        let found = try budget.wait(for: .event) { (nanoseconds) throws(SystemError) -> Int? in
            // The processor wakes up a millisecond late.
            MonotonicClock.sleep(nanoseconds: nanoseconds + 1_000_000)
            return 7
        } orSleep: { _ in
            nil
        }
        #expect(found == 7)
        #expect(budget.plan(for: .event, now: 0).nap == nap - PollBudget.lead)
    }

    @Test func `a wait that needs too long a nap is not polled`() {
        var budget = budget()
        for _ in 0..<40 { budget.slept(for: .event, waited: PollBudget.naps.upperBound + PollBudget.lead + 1) }
        #expect(budget.plan(for: .event, now: 0) == PollBudget.Plan())
    }

    /// What a wait did.
    private struct Course {
        var found: Int?
        var looks = 0
        var sleeps: [UInt64?] = []
    }

    /// Waits for an event that comes with look number `comesAt`, or while the thread sleeps if that is nil.
    private func wait(
        _ budget: inout PollBudget,
        within longest: UInt64? = nil,
        comesAt: Int? = nil,
        sleeping: @escaping () -> Int? = { 8 }
    ) throws -> Course {
        var course = Course()
        course.found = try budget.wait(for: .event, within: longest) { _ throws(SystemError) -> Int? in
            course.looks += 1
            return course.looks == comesAt ? 7 : nil
        } orSleep: { (nanoseconds) throws(SystemError) -> Int? in
            course.sleeps.append(nanoseconds)
            return sleeping()
        }
        return course
    }

    @Test func `a wait polls first, and sleeps only if nothing comes in time`() throws {
        // Another program can take the processor for so long that the thread stops to poll: one good try is enough.
        var (hasPolled, hasSlept) = (false, false)
        for _ in 0..<1000 where !(hasPolled && hasSlept) {
            var budget = budget()
            budget.slept(for: .event, waited: limit)
            let first = try wait(&budget, comesAt: 3)
            hasPolled = hasPolled || first.found == 7 && first.looks == 3 && first.sleeps.isEmpty
            let second = try wait(&budget)
            hasSlept = hasSlept || second.found == 8 && second.looks > 3 && second.sleeps == [nil]
        }
        #expect(hasPolled && hasSlept)
    }

    @Test func `without a limit to poll, a wait sleeps at once, whatever was learnt`() throws {
        var budget = PollBudget(limit: .zero)
        for _ in 0..<40 {
            budget.slept(for: .event, waited: 50_000)
            let course = try wait(&budget, within: 7_000)
            #expect(course.looks == 0 && course.sleeps == [7_000])
        }
    }

    @Test func `waits that ran out of time teach nothing, and take no longer than they may`() throws {
        var budget = budget()
        for _ in 0..<40 {
            let course = try wait(&budget, within: 100_000, sleeping: { nil })
            #expect(course.found == nil && course.looks == 0 && course.sleeps.count == 1)
        }
        // A wait that may not take as long as the thread would nap and poll sleeps at once.
        for _ in 0..<40 { budget.slept(for: .event, waited: 2_000_000) }
        let short = try wait(&budget, within: 1_000_000, sleeping: { nil })
        #expect(short.looks == 0)
        #expect(short.sleeps.allSatisfy { $0 ?? .max <= 1_000_000 })
    }
}
