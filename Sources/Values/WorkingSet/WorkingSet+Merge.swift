extension WorkingSet {
    /// Merges several working sets of one memory into one.
    ///
    /// Pages that are in more of the sets come first, since the guest is likelier to touch them again. Pages that are
    /// in equally many sets are ordered by their mean rank, where a page's rank in a set is the number of pages touched
    /// before it. The unit of comparison is a stretch: pages that lie in one run of every set that has them. A stretch
    /// has the rank of its first page, so runs stay whole. The merged window is the longest one. Runs beyond
    /// ``maxRuns`` are dropped from the end.
    ///
    /// - Parameter sets: at least one working set.
    /// - Throws: an error if the sets are not all of one memory.
    package static func merging(_ sets: [WorkingSet]) throws(WorkingSetError) -> WorkingSet {
        precondition(!sets.isEmpty, "nothing to merge")
        for other in sets.dropFirst() { try sets[0].requireMemory(other.memory) }
        var merged = WorkingSet(of: sets[0].memory, window: sets.reduce(0) { max($0, $1.window) })
        let cuts = cuts(of: sets)
        // For the stretch from each cut to the next: the number of sets that have it, and the sum of its ranks.
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
            // Stretches with equal counts have the same order by sum as by mean.
            (counts[other], ranks[one], one) < (counts[one], ranks[other], other)
        }
        for index in order {
            let stretch = Run(first: cuts[index], count: cuts[index + 1] - cuts[index])
            guard merged.append(stretch) else { break }
        }
        return merged
    }

    /// Every page at which a run of any of the sets begins or ends, in ascending order without duplicates.
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

    /// The index of `page` in `cuts`, which contains it.
    private static func place(of page: UInt32, in cuts: [UInt32]) -> Int {
        var (low, high) = (0, cuts.count)
        while low < high {
            let middle = (low + high) / 2
            if cuts[middle] < page { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
