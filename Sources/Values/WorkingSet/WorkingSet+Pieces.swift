extension WorkingSet {
    /// The runs of a working set in order, cut into pieces of bounded length.
    ///
    /// The sequence is its own iterator: a fetcher keeps it and takes a piece whenever a piece can be requested.
    package struct Pieces: Sequence, IteratorProtocol, Sendable {
        private let runs: [Run]
        private let bound: UInt32
        private var index = 0
        /// Pages of the run at `index` that earlier pieces contained.
        private var taken: UInt32 = 0

        init(of runs: [Run], atMost bound: UInt32) {
            precondition(bound > 0, "a piece has pages")
            self.runs = runs
            self.bound = bound
        }

        /// The next piece; nil after the last.
        package mutating func next() -> Run? {
            guard index < runs.count else { return nil }
            let run = runs[index]
            let piece = Run(first: run.first + taken, count: Swift.min(bound, run.count - taken))
            taken += piece.count
            if taken == run.count {
                index += 1
                taken = 0
            }
            return piece
        }
    }
}
