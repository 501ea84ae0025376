/// Finds streams among the faults of each thread, sequential or strided, up or down, and asks for the pages that they
/// will come to. The windows of a stream grow as it goes on.
///
/// A page that was asked for ahead and is there raises no fault, so that a stream is seen to have used its window by the
/// fault behind it. A thread whose streams end early is given shorter windows, and then none; its streams are followed
/// all the same, to see whether windows would be used again.
struct Streams: PrefetchPolicy {
    /// Threads whose numbers differ by less have tables of their own; others may share one, and still find their streams.
    private static let readerCount = 32
    private static let streamsPerReader = 16
    /// The farthest that two faults of a stream lie apart, in pages.
    private static let longestStride = 64
    private static let firstWindow = 8
    /// Most pages that are asked for one by one.
    private static let longestStrided = 64
    /// Pages of a run that comes in order to a stream that goes down.
    private static let downwardRun = 16
    /// How far behind its window a stream may go on: the push or other threads may have brought the pages in between.
    private static let slack = 8
    /// Pages that a judgement of a thread takes.
    private static let sample = 64

    private let regions: [PrefetchBounds]
    private var streams: [Stream]
    private var budgets: [PrefetchBudget]
    private var time = 0
    /// Pages asked for so far.
    private(set) var asked = 0
    /// Those of them that a stream has come past.
    private var used = 0

    private struct Stream {
        /// Negative for none.
        var region = -1
        /// The newest fault.
        var newest = 0
        /// 0 after the first fault.
        var stride = 0
        /// 0 until two strides were the same.
        var window = 0
        /// The first page of its way that is beyond its window.
        var next = 0
        /// How many of the pages ahead were asked for.
        var asked = 0
        var touched = 0

        /// Steps from the newest fault to a page that it may come to; nil for a page that is not on its way.
        @inline(__always)
        func steps(to page: Int) -> Int? {
            guard stride != 0 else { return nil }
            // Before two strides were the same, any page would be on the way of a small step.
            guard window != 0 else { return page - newest == stride ? 1 : nil }
            let (steps, rest) = (page - newest).quotientAndRemainder(dividingBy: stride)
            return rest == 0 && steps > 0 && steps <= ahead + Streams.slack ? steps : nil
        }

        /// Pages of its window ahead of the newest fault.
        @inline(__always)
        var ahead: Int { window == 0 ? 0 : (next - newest) / stride - 1 }
    }

    /// Makes one that knows no stream.
    init(_ regions: [PrefetchBounds]) {
        self.regions = regions
        streams = Array(repeating: Stream(), count: Streams.readerCount * Streams.streamsPerReader)
        let budget = PrefetchBudget(
            longest: max(1, regions.reduce(0) { max($0, $1.window) }),
            least: Streams.firstWindow,
            sample: Streams.sample
        )
        budgets = Array(repeating: budget, count: Streams.readerCount)
    }

    var unused: Int { asked - used }

    @inline(__always)
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable) {
        time += 1
        let reader = Int(fault.thread) % Streams.readerCount
        let own = reader * Streams.streamsPerReader..<(reader + 1) * Streams.streamsPerReader
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
        let longest = min(bounds.window, budgets[reader].watched, abs(stride) == 1 ? .max : Streams.longestStrided)
        stream.window = min(longest, max(Streams.firstWindow, stream.window * 2))
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

    /// Asks for `count` pages, the nearest first.
    ///
    /// - Returns: how many were missing.
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
                let begin = max(first + 1 - count, end - Streams.downwardRun)
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

    /// A fault that is on no stream's way: the second or third of one, or the first of a new one.
    private mutating func begin(_ fault: Fault, _ own: Range<Int>, _ reader: Int) {
        var oldest = own.lowerBound
        for index in own {
            let stream = streams[index]
            let distance = fault.page - stream.newest
            if stream.region == fault.region, stream.window == 0, distance != 0,
                abs(distance) <= Streams.longestStride
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
