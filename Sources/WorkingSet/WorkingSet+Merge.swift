extension WorkingSet {
    /// One working set with the pages of several.
    ///
    /// Those that more of them have come first, since they are the likelier to be touched; among these, those that have
    /// the lower mean rank, a page's rank being how many pages were touched before it. Ranks are compared for stretches
    /// that lie in one run of every working set that has them, by their first page, so that runs stay whole. The window
    /// is the longest. Of more than ``maxRuns`` runs the last are left out.
    ///
    /// - Parameter sets: at least one.
    /// - Throws: that they are not all of one memory.
    public static func merging(_ sets: [WorkingSet]) throws(WorkingSetError) -> WorkingSet {
        precondition(!sets.isEmpty, "nothing to merge")
        for other in sets.dropFirst() { try sets[0].requireMemory(other.memory) }
        var merged = WorkingSet(of: sets[0].memory, window: sets.reduce(0) { max($0, $1.window) })
        let cuts = cuts(of: sets)
        // Of the stretch from each cut to the next: how many sets have it, and the sum of its ranks.
        var counts = [UInt32](repeating: 0, count: cuts.count)
        var ranks = [UInt64](repeating: 0, count: cuts.count)
        for set in sets {
            var rank: UInt64 = 0
            for run in set.runs {
                var index = place(of: run.first, in: cuts)
                while cuts[index] < run.end {
                    counts[index] += 1
                    ranks[index] += rank + UInt64(cuts[index] - run.first)
                    index += 1
                }
                rank += UInt64(run.count)
            }
        }
        var order = counts.indices.filter { counts[$0] > 0 }
        order.sort { one, other in
            // Where the counts are the same, so is the order of sums and of means.
            (counts[other], ranks[one], one) < (counts[one], ranks[other], other)
        }
        for index in order {
            let stretch = Run(first: cuts[index], count: cuts[index + 1] - cuts[index])
            guard merged.append(stretch) else { break }
        }
        return merged
    }

    /// Every page at which a run of any of them begins or ends, in order.
    private static func cuts(of sets: [WorkingSet]) -> [UInt32] {
        var all: [UInt32] = []
        all.reserveCapacity(sets.reduce(0) { $0 + 2 * $1.runs.count })
        for set in sets {
            for run in set.runs {
                all.append(run.first)
                all.append(run.end)
            }
        }
        all.sort()
        var kept = 0
        for cut in all where kept == 0 || all[kept - 1] != cut {
            all[kept] = cut
            kept += 1
        }
        all.removeLast(all.count - kept)
        return all
    }

    /// The index of a page that is among the cuts.
    private static func place(of page: UInt32, in cuts: [UInt32]) -> Int {
        var (low, high) = (0, cuts.count)
        while low < high {
            let middle = (low + high) / 2
            if cuts[middle] < page { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
