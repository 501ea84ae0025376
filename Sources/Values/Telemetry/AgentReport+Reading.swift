import Identity
import Outside

extension AgentReport {
    /// Why a report from an agent cannot be right.
    package struct Contradiction: Error, Hashable, Sendable, CustomStringConvertible {
        /// The wrong value and its field, in one line for a person.
        package let description: String
    }

    /// The bounds of a number of pages, above what any memory can have, even if pages are counted several times.
    private static let pageCounts = 0...(1 << 48)

    /// Refuses a report with a number out of bounds, from an agent that is broken or is another program.
    package func requireSound() throws(Contradiction) {
        func check(_ what: String, _ count: Int, _ bounds: ClosedRange<Int> = AgentReport.pageCounts)
            throws(Contradiction)
        {
            guard Untrusted(count).within(bounds) != nil else {
                throw Contradiction(description: "the report says \(count) for \(what)")
            }
        }
        guard !states.isEmpty else { throw Contradiction(description: "the report says no state of the migration") }
        guard path?.count ?? 0 <= 1000, path?.allSatisfy({ (0...1e15).contains($0.at) }) != false else {
            throw Contradiction(description: "the report's times of the states are out of bounds")
        }
        try check("the bytes of a page", pageSize, 0...(1 << 30))
        if let source {
            try check("the requests", source.requests)
            try check("the bytes sent", source.bytesSent, 0...Int.max)
            try check("the connections of the push", source.pushLanes ?? 1, 1...Int.max)
            if let compression = source.compression {
                try check("the bytes before compression", compression.bytesBefore, 0...Int.max)
                try check("the bytes after compression", compression.bytesAfter, 0...Int.max)
                try check("the compressed runs", compression.runs)
                try check("the runs that did not shrink", compression.runsUnshrunk)
                try check("the runs that were not tried", compression.runsSkipped)
            }
        }
        guard let destination else { return }
        guard destination.distribution?.isSound != false else {
            throw Contradiction(description: "the report's histogram is out of bounds")
        }
        guard destination.arrivals?.isSound != false else {
            throw Contradiction(description: "the report's times of arrival are out of bounds")
        }
        let pages = destination.pages
        try check("the waiting faults", destination.waitingFaults)
        try check("the pages in all", pages.total)
        try check("the pages on demand", pages.demand)
        try check("the pages prefetched", pages.prefetched)
        try check("the pages prefetched in vain", pages.prefetchedUnused)
        try check("the pages pushed", pages.pushed)
        try check("the pages of zeros", pages.zero)
        try check("the duplicate pages", pages.duplicate, 0...Int.max)
    }
}
