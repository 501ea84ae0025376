import Testing

@testable import PageFetcher

@Suite struct PrefetchBudgetTests {
    private var budget: PrefetchBudget { PrefetchBudget(longest: 64, least: 8, sample: 10) }

    @Test func `a window halves when less than a quarter is used, down to nothing`() {
        var budget = budget
        let windows = (0..<6).map { _ in
            budget.settle(10, used: 2)
            return budget.window
        }
        #expect(windows == [32, 16, 8, 0, 0, 0])
    }

    @Test func `a window doubles when half is used, and otherwise stays`() {
        var budget = budget
        for _ in 0..<2 { budget.settle(10, used: 0) }
        #expect(budget.window == 16)
        budget.settle(10, used: 3)
        #expect(budget.window == 16)
        budget.settle(10, used: 5)
        #expect(budget.window == 32)
        for _ in 0..<3 { budget.settle(10, used: 10) }
        #expect(budget.window == 64)
    }

    @Test func `a sample must be full before it counts`() {
        var budget = budget
        for _ in 0..<9 { budget.settle(1, used: 0) }
        #expect(budget.window == 64)
        budget.settle(1, used: 0)
        #expect(budget.window == 32)
    }

    @Test func `a closed window opens again if it would have been used, and its rest grows only up to a bound`() {
        var budget = budget
        for _ in 0..<4 { budget.settle(10, used: 0) }
        var rests: [Int] = []
        for _ in 0..<7 {
            #expect(budget.window == 0)
            #expect(budget.watched == 8)
            var rest = 0
            while budget.window == 0 {
                budget.settle(10, used: 10)
                rest += 1
            }
            #expect(budget.window == 8)
            rests.append(rest)
            budget.settle(10, used: 0)
        }
        #expect(rests == [1, 2, 4, 8, 16, 16, 16])
        // A window that lasts makes the next rest short.
        while budget.window < 64 { budget.settle(10, used: 10) }
        budget.settle(10, used: 10)
        for _ in 0..<4 { budget.settle(10, used: 0) }
        #expect(budget.window == 0)
        budget.settle(10, used: 10)
        #expect(budget.window == 8)
    }
}
