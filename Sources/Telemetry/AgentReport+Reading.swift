import Outside

extension AgentReport {
    /// Why a report that came from an agent is none.
    public struct Contradiction: Error, Hashable, Sendable, CustomStringConvertible {
        /// Which number is wrong.
        public let description: String
    }

    /// More pages than any memory has, also counted several times.
    private static let pageCounts = 0...(1 << 48)

    /// Checks a report that came from outside: an agent that lies, or is another program, is told as such instead of
    /// having its numbers shown.
    public func requireSound() throws(Contradiction) {
        func check(_ what: String, _ count: Int, _ bounds: ClosedRange<Int> = AgentReport.pageCounts)
            throws(Contradiction)
        {
            guard Untrusted(count).within(bounds) != nil else {
                throw Contradiction(description: "it says \(count) for \(what)")
            }
        }
        try check("the bytes of a page", pageSize, 0...(1 << 30))
        if let source {
            try check("the requests", source.requests)
            try check("the bytes sent", source.bytesSent, 0...Int.max)
        }
        guard let pages = destination?.pages else { return }
        try check("the pages in all", pages.total)
        try check("the pages on demand", pages.demand)
        try check("the pages prefetched", pages.prefetched)
        try check("the pages prefetched in vain", pages.prefetchedUnused)
        try check("the pages pushed", pages.pushed)
        try check("the pages of zeros", pages.zero)
        try check("the duplicate pages", pages.duplicate, 0...Int.max)
    }
}
