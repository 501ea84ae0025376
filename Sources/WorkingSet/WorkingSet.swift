/// The pages of a snapshot's memory that a guest touched after it was restored, in the order of their first touch.
///
/// It is a hint: whoever fetches the pages in this order finds most of them there when they are touched. One that is
/// wrong costs needless fetches and never a wrong page, since it holds no content. So it is bound to the size of the
/// memory only, and one that was recorded on a copy of the snapshot, or on an older snapshot of the same size, can be
/// used.
public struct WorkingSet: Hashable, Sendable {
    /// The memory that was recorded.
    public let memory: Memory
    /// For how long touches were recorded after the guest had been attached, in milliseconds.
    public let window: UInt32
    /// The pages as runs, in the order of their first touch. No page is in two of them, and none begins where the one
    /// before it ends.
    public internal(set) var runs: [Run] = []
    /// How many pages there are in all runs.
    public private(set) var pageCount: UInt32 = 0

    /// Most runs of a working set: as many as 16 GiB have pages of 4 KiB.
    public static let maxRuns = 1 << 22

    init(of memory: Memory, window: UInt32) {
        self.memory = memory
        self.window = window
    }

    /// Makes a working set out of pages in the order of their touches.
    ///
    /// - Parameters:
    ///   - pages: indices into the memory file. Only the first touch of a page counts. What is touched after there are
    ///     ``maxRuns`` runs is left out.
    ///   - memory: the memory that was recorded.
    ///   - window: for how long it was recorded, in milliseconds.
    /// - Throws: that a page lies outside of the memory.
    public init(
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

    /// Adds pages that no other run has, joined to the last run where they continue it; false where that is one run too
    /// many.
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
    public struct Run: Hashable, Sendable {
        /// The first page's index.
        public var first: UInt32
        /// How many pages; at least 1.
        public var count: UInt32

        /// A run of pages that lie in some memory.
        public init(first: UInt32, count: UInt32) {
            self.first = first
            self.count = count
        }

        /// The index behind the last page's.
        public var end: UInt32 { first + count }
    }

    /// Bytes of all pages.
    public var byteCount: UInt64 { UInt64(pageCount) * UInt64(memory.pageSize) }

    /// The part of the memory that its pages are, from 0 to 1.
    public var shareOfMemory: Double { Double(pageCount) / Double(memory.pageCount) }

    /// The part of the pages that lie in runs of at least so many, from 0 to 1; 0 where there are no pages.
    public func share(inRunsOf count: UInt32) -> Double {
        guard pageCount > 0 else { return 0 }
        let pages = runs.reduce(0) { $0 + ($1.count >= count ? UInt64($1.count) : 0) }
        return Double(pages) / Double(pageCount)
    }

    /// The runs in order, longer ones cut into pieces of at most so many pages.
    public func pieces(ofAtMost pages: UInt32) -> Pieces {
        Pieces(of: runs, atMost: pages)
    }

    /// Sees that the working set can be used for a memory: that of its snapshot, or of a snapshot of the same size in
    /// the same pages.
    public func requireMemory(_ other: Memory) throws(WorkingSetError) {
        guard memory == other else {
            throw WorkingSetError("it was recorded on a snapshot of \(memory), and this one is of \(other)")
        }
    }
}
