extension WorkingSet {
    /// The Jaccard index of two working sets: the pages that both have, divided by the pages that at least one has.
    ///
    /// The order of the pages does not count. The result is 0 if no page is common and 1 if all are; 1 also if both
    /// sets are empty, and nil if the sets are of different memories.
    package func jaccardIndex(with other: WorkingSet) -> Double? {
        guard memory == other.memory else { return nil }
        let common = commonPages(with: other)
        let all = UInt64(pageCount) + UInt64(other.pageCount) - common
        return all == 0 ? 1 : Double(common) / Double(all)
    }

    private func commonPages(with other: WorkingSet) -> UInt64 {
        let mine = runsByPage
        let others = other.runsByPage
        var (index, otherIndex) = (0, 0)
        var common: UInt64 = 0
        while index < mine.count, otherIndex < others.count {
            let (run, otherRun) = (mine[index], others[otherIndex])
            let begin = max(run.first, otherRun.first)
            let end = min(run.end, otherRun.end)
            if begin < end { common += UInt64(end - begin) }
            if run.end <= otherRun.end { index += 1 } else { otherIndex += 1 }
        }
        return common
    }

    /// The runs in the order of their addresses.
    var runsByPage: [Run] { runs.sorted { $0.first < $1.first } }
}
