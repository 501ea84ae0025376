import Testing
import WorkingSet

@Suite struct MergeTests {
    private typealias Run = WorkingSet.Run

    private func set(_ pages: some Sequence<UInt32>, window: UInt32 = 1) throws -> WorkingSet {
        try WorkingSet(pages: Array(pages), of: Samples.memory(), window: window)
    }

    @Test func `the Jaccard index is the share of common pages, whatever their order`() throws {
        let one = try set(0..<10)
        #expect(one.jaccardIndex(with: one) == 1)
        #expect(one.jaccardIndex(with: try set((0..<10).reversed())) == 1)
        #expect(one.jaccardIndex(with: try set(5..<15)) == 5 / 15)
        #expect(one.jaccardIndex(with: try set([20, 21, 9, 0, 3])) == 3 / 12)
        #expect(one.jaccardIndex(with: try set(10..<20)) == 0)
        #expect(one.jaccardIndex(with: try set([])) == 0)
        #expect(try set([]).jaccardIndex(with: set([])) == 1)
        #expect(try set(5..<15).jaccardIndex(with: one) == 5 / 15)
    }

    @Test func `working sets of different memories have no Jaccard index and are not merged`() throws {
        let huge = try WorkingSet(pages: [1], of: Samples.memory(pageSize: 2 << 20), window: 1)
        #expect(try set([1]).jaccardIndex(with: huge) == nil)
        #expect(throws: WorkingSetError.self) { try WorkingSet.merging([set([1]), huge]) }
    }

    @Test func `a working set merged with itself is the same`() throws {
        let one = try set([16, 17, 18, 3, 200, 199, 198])
        #expect(try WorkingSet.merging([one]) == one)
        #expect(try WorkingSet.merging([one, one, one]) == one)
    }

    @Test func `pages of more working sets come first, in the order of their mean ranks`() throws {
        let merged = try WorkingSet.merging([
            set([100, 1, 2, 3, 50], window: 5), set([50, 1, 2, 3, 200], window: 7), set([50, 70, 1], window: 6),
        ])
        // All sets have page 50, with ranks 4, 0, 0, and page 1, with ranks 1, 1, 2. Two sets have pages 2 and 3. One
        // set has page 100 with rank 0, page 70 with rank 1 and page 200 with rank 4.
        let expected: [Run] = [
            Run(first: 1, count: 1), Run(first: 50, count: 1), Run(first: 2, count: 2), Run(first: 100, count: 1),
            Run(first: 70, count: 1), Run(first: 200, count: 1),
        ]
        // The ranks of pages 1 and 50 both sum to 4, so the lower page is first.
        #expect(merged.runs == expected)
        #expect(merged.window == 7)
    }

    @Test func `runs that are touched in another order stay whole`() throws {
        let merged = try WorkingSet.merging([set(Array(0..<20) + Array(40..<60)), set(Array(40..<60) + Array(0..<20))])
        #expect(merged.runs == [Run(first: 0, count: 20), Run(first: 40, count: 20)])
    }

    @Test func `the common part of overlapping runs comes first`() throws {
        let merged = try WorkingSet.merging([set(0..<100), set(50..<150)])
        #expect(merged.runs == [Run(first: 50, count: 50), Run(first: 0, count: 50), Run(first: 100, count: 50)])
        #expect(merged.pageCount == 150)
    }

    @Test func `seeded random sets merge to their union, whatever their order`() throws {
        var generator = SeededGenerator(state: 7)
        for _ in 0..<100 {
            let pages = (0..<3).map { _ in
                (0..<40).map { _ in UInt32.random(in: 0..<256, using: &generator) }
            }
            let sets = try pages.map { try set($0) }
            let merged = try WorkingSet.merging(sets)
            let touched = merged.pieces(ofAtMost: 1).map(\.first)
            #expect(touched.count == Set(touched).count)
            #expect(Set(touched) == Set(pages.joined()))
            let shares = touched.map { page in pages.count { $0.contains(page) } }
            #expect(shares == shares.sorted(by: >))
            #expect(try WorkingSet.merging(sets.reversed()) == merged)
            let common = Set(pages[0]).intersection(pages[1]).count
            let all = Set(pages[0]).union(pages[1]).count
            #expect(sets[0].jaccardIndex(with: sets[1]) == Double(common) / Double(all))
        }
    }
}
