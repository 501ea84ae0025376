/// Finds sequential or strided streams, up or down, in each thread's faults, and requests the next pages of each
/// stream.
///
/// The window of a stream grows as the stream continues. A prefetched page that has arrived raises no fault, so a
/// stream has used its window when the fault after the window comes. A thread whose streams end early gets shorter
/// windows, and finally none. Its streams are still followed, to find out whether windows would be used again.
struct StridePrefetch: PrefetchPolicy {
    /// The number of stream tables.
    ///
    /// Threads share a table if their numbers are equal modulo this number; streams are found in a shared table too.
    private static let readerCount = 32
    private static let streamsPerReader = 16
    /// The longest distance between two faults of a stream, in pages.
    private static let longestStride = 64
    private static let firstWindow = 8
    /// The most pages that are requested one by one.
    private static let longestStrided = 64
    /// The pages in one ascending run that is requested for a descending stream.
    private static let downwardRun = 16
    /// The pages by which a fault may pass the window's end and still continue the stream: the push or other threads
    /// may have brought the pages in between.
    private static let slack = 8
    /// The number of pages that one judgement of a thread needs.
    private static let sample = 64

    private let regions: [PrefetchBounds]
    private var streams: [Stream]
    private var budgets: [PrefetchBudget]
    private var time = 0
    /// Pages requested so far.
    private(set) var asked = 0
    /// The requested pages that a stream has passed.
    private var used = 0

    private struct Stream {
        /// The region of the stream; negative for a free entry.
        var region = -1
        /// The page of the newest fault.
        var newest = 0
        /// The distance between two faults in pages, negative for a descending stream; 0 after the first fault.
        var stride = 0
        /// The window in pages; 0 until two strides were equal.
        var window = 0
        /// The first page on the stream's path that is beyond its window.
        var next = 0
        /// The number of pages ahead of the newest fault that were requested.
        var asked = 0
        var touched = 0

        /// The steps from the newest fault to `page`; nil if the page is not on the stream's path.
        @inline(__always)
        func steps(to page: Int) -> Int? {
            guard stride != 0 else { return nil }
            // Before two strides are equal, a small stride would put almost any page on the path.
            guard window != 0 else { return page - newest == stride ? 1 : nil }
            let (steps, rest) = (page - newest).quotientAndRemainder(dividingBy: stride)
            return rest == 0 && steps > 0 && steps <= ahead + StridePrefetch.slack ? steps : nil
        }

        /// The pages of the window that are ahead of the newest fault.
        @inline(__always)
        var ahead: Int { window == 0 ? 0 : (next - newest) / stride - 1 }
    }

    /// Makes a policy without streams.
    init(_ regions: [PrefetchBounds]) {
        self.regions = regions
        streams = Array(repeating: Stream(), count: StridePrefetch.readerCount * StridePrefetch.streamsPerReader)
        let budget = PrefetchBudget(
            longest: max(1, regions.reduce(0) { max($0, $1.window) }),
            least: StridePrefetch.firstWindow,
            sample: StridePrefetch.sample
        )
        budgets = Array(repeating: budget, count: StridePrefetch.readerCount)
    }

    var unused: Int { asked - used }

    @inline(__always)
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable) {
        time += 1
        let reader = Int(fault.thread) % StridePrefetch.readerCount
        let own = reader * StridePrefetch.streamsPerReader..<(reader + 1) * StridePrefetch.streamsPerReader
        for index in own where streams[index].region == fault.region {
            guard let steps = streams[index].steps(to: fault.page) else { continue }
            return advance(index, by: steps, reader, in: &missing)
        }
        begin(fault, own, reader)
    }

    private mutating func advance(
        _ index: Int,
        by steps: Int,
        _ reader: Int,
        in missing: inout some MissingPages & ~Copyable
    ) {
        var stream = streams[index]
        defer { streams[index] = stream }
        let stride = stream.stride
        let ahead = stream.ahead
        let passed = min(steps, ahead)
        if passed > 0 {
            let used = stream.asked * passed / ahead
            stream.asked -= used
            self.used += used
            budgets[reader].settle(passed, used: passed)
        }
        stream.newest += steps * stride
        stream.touched = time
        if steps > ahead { stream.next = stream.newest + stride }
        guard stream.window == 0 || stream.ahead < max(1, stream.window / 2) else { return }

        let bounds = regions[stream.region]
        let longest = min(
            bounds.window,
            budgets[reader].watched,
            abs(stride) == 1 ? .max : StridePrefetch.longestStrided
        )
        stream.window = min(longest, max(StridePrefetch.firstWindow, stream.window * 2))
        let room = stride > 0 ? bounds.pageCount - 1 - stream.next : stream.next
        let inside = room < 0 ? 0 : room / abs(stride) + 1
        let count = min(inside, stream.window - stream.ahead)
        guard count > 0 else { return }
        if budgets[reader].window > 0 {
            let added = ask(from: stream.next, stride: stride, count: count, region: stream.region, in: &missing)
            stream.asked += added
            asked += added
        }
        stream.next += count * stride
    }

    /// Requests `count` pages, nearest first.
    ///
    /// - Returns: the number of missing pages.
    private func ask(
        from first: Int,
        stride: Int,
        count: Int,
        region: Int,
        in missing: inout some MissingPages & ~Copyable
    ) -> Int {
        var added = 0
        switch stride {
        case 1:
            added = missing.ask(first..<first + count, region: region)
        case -1:
            var end = first + 1
            while end > first + 1 - count {
                let begin = max(first + 1 - count, end - StridePrefetch.downwardRun)
                added += missing.ask(begin..<end, region: region)
                end = begin
            }
        default:
            for step in 0..<count {
                let page = first + step * stride
                added += missing.ask(page..<page + 1, region: region)
            }
        }
        return added
    }

    /// Handles a fault that continues no stream: the second or third of a new stream, or the first of another.
    private mutating func begin(_ fault: Fault, _ own: Range<Int>, _ reader: Int) {
        var oldest = own.lowerBound
        for index in own {
            let stream = streams[index]
            let distance = fault.page - stream.newest
            if stream.region == fault.region, stream.window == 0, distance != 0,
                abs(distance) <= StridePrefetch.longestStride
            {
                streams[index].newest = fault.page
                streams[index].stride = distance
                streams[index].touched = time
                return
            }
            if stream.touched < streams[oldest].touched { oldest = index }
        }
        if streams[oldest].ahead > 0 { budgets[reader].settle(streams[oldest].ahead, used: 0) }
        streams[oldest] = Stream(region: fault.region, newest: fault.page, next: fault.page, touched: time)
    }
}
