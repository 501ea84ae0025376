/// The pages of a snapshot's memory that a guest touched after it was restored, in the order of their first touch.
///
/// A working set is a hint: a fetcher that requests the pages in this order has most of them before the guest touches
/// them. A wrong hint costs needless fetches but never a wrong page, since a working set has no content of pages. So
/// only the page size and the size of the memory must match: the working set of a copy of the snapshot, or of an older
/// snapshot of the same size, can be used.
package struct WorkingSet: Hashable, Sendable {
    /// The memory on which the touches were recorded.
    package let memory: Memory
    /// The time for which touches were recorded after the guest was attached, in milliseconds.
    package let window: UInt32
    /// The pages as runs, in the order of their first touch.
    ///
    /// No page is in two runs, and no run begins where the run before it ends.
    package internal(set) var runs: [Run] = []
    /// The number of pages in all runs.
    package private(set) var pageCount: UInt32 = 0

    /// The maximum number of runs: the number of 4 KiB pages in 16 GiB.
    package static let maxRuns = 1 << 22

    init(of memory: Memory, window: UInt32) {
        self.memory = memory
        self.window = window
    }

    /// Makes a working set from pages in the order of their touches.
    ///
    /// - Parameters:
    ///   - pages: indices into the memory file. Repeated touches of a page are ignored. After ``maxRuns`` runs, the
    ///     rest is left out.
    ///   - memory: the memory on which the touches were recorded.
    ///   - window: the time for which touches were recorded, in milliseconds.
    /// - Throws: an error that names the first page outside of the memory.
    package init(
        pages: some Sequence<UInt32>,
        of memory: Memory,
        window: UInt32
    ) throws(WorkingSetError) {
        self.init(of: memory, window: window)
        var seen: Set<UInt32> = []
        for page in pages {
            guard page < memory.pageCount else {
                throw WorkingSetError("page \(page) lies beyond the \(memory.pageCount) pages of the snapshot")
            }
            if seen.insert(page).inserted, !append(Run(first: page, count: 1)) { return }
        }
    }

    /// Appends pages that no other run has, joining them to the last run if they continue it.
    ///
    /// - Returns: false if there are already ``maxRuns`` runs, so that the pages were not added.
    mutating func append(_ run: Run) -> Bool {
        if let last = runs.last, last.end == run.first {
            runs[runs.count - 1].count += run.count
        } else {
            guard runs.count < WorkingSet.maxRuns else { return false }
            runs.append(run)
        }
        pageCount += run.count
        return true
    }
}

extension WorkingSet {
    /// Contiguous pages of the memory file.
    package struct Run: Hashable, Sendable {
        /// The index of the first page.
        package var first: UInt32
        /// The number of pages; at least 1.
        package var count: UInt32

        /// Makes a run; the caller keeps it within its memory.
        package init(first: UInt32, count: UInt32) {
            self.first = first
            self.count = count
        }

        /// The index after that of the last page.
        package var end: UInt32 { first + count }
    }

    /// Bytes of all pages.
    package var byteCount: UInt64 { UInt64(pageCount) * UInt64(memory.pageSize) }

    /// The part of the memory that the pages make up, from 0 to 1.
    package var shareOfMemory: Double { Double(pageCount) / Double(memory.pageCount) }

    /// The part of the pages that lie in runs of at least `count` pages, from 0 to 1; 0 if there are no pages.
    package func share(inRunsOf count: UInt32) -> Double {
        guard pageCount > 0 else { return 0 }
        let pages = runs.reduce(0) { $0 + ($1.count >= count ? UInt64($1.count) : 0) }
        return Double(pages) / Double(pageCount)
    }

    /// The runs in order, longer ones cut into pieces of at most `pages` pages.
    package func pieces(ofAtMost pages: UInt32) -> Pieces {
        Pieces(of: runs, atMost: pages)
    }

    /// Checks that the working set fits `other`: its snapshot's memory, or a memory of the same size and page size.
    ///
    /// - Throws: an error that names both memories if they differ.
    package func requireMemory(_ other: Memory) throws(WorkingSetError) {
        guard memory == other else {
            throw WorkingSetError("it was recorded on a snapshot of \(memory), and this one is of \(other)")
        }
    }
}
