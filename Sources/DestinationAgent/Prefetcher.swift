/// Finds streams among the faults, sequential or strided, up or down, and says which pages they will come to.
///
/// A pure value: faults in, pages out. The windows of a stream grow as it goes on. A page that was asked for ahead and is
/// there raises no fault, so that a stream is seen to have used its window by the fault behind it.
struct Prefetcher {
    /// Pages to ask for ahead of a stream: `first`, then every `stride`, `count` of them.
    struct Ahead: Hashable {
        var first: Int
        var stride: Int
        var count: Int
    }

    /// What it has asked for so far.
    private(set) var asked = 0
    /// How many of those nobody has come to, as far as that shows.
    private var abandoned = 0

    private static let streamCount = 16
    /// The farthest that two faults of a stream lie apart, in pages.
    private static let longestStride = 64
    private static let firstWindow = 8
    /// What a fault of another thread may have to wait behind, in pages.
    private static let longestWindow = 64
    /// The longest window where more than a third of the pages were asked for in vain.
    private static let shortWindow = 16
    /// How far behind its window a stream may go on: other threads may have fetched the pages in between.
    private static let slack = 8

    private let pageCounts: [Int]
    private var streams: [Stream] = []
    private var time = 0

    private struct Stream {
        var region: Int
        /// The newest fault.
        var newest: Int
        /// 0 after the first fault.
        var stride = 0
        /// 0 until two strides were the same.
        var window = 0
        /// The first page of its way that was not asked for.
        var next: Int
        var touched: Int

        /// Steps from the newest fault to a page on its way ahead; nil for a page that is not.
        func steps(to page: Int) -> Int? {
            guard stride != 0 else { return nil }
            let (steps, rest) = (page - newest).quotientAndRemainder(dividingBy: stride)
            return rest == 0 && steps > 0 ? steps : nil
        }

        /// Pages ahead of the newest fault that were asked for.
        var ahead: Int { window == 0 ? 0 : max(0, (next - newest) / stride - 1) }
    }

    /// Makes one that knows no stream.
    ///
    /// - Parameter pageCounts: pages of each region.
    init(pageCounts: [Int]) {
        self.pageCounts = pageCounts
        streams.reserveCapacity(Prefetcher.streamCount)
    }

    /// Asked for ahead, and not come to so far.
    var unused: Int { abandoned + streams.reduce(0) { $0 + $1.ahead } }

    /// Tells of a fault.
    ///
    /// - Returns: what to ask for ahead, or nil.
    @inline(__always)
    mutating func fault(region: Int, page: Int) -> Ahead? {
        time += 1
        for index in streams.indices where streams[index].region == region {
            let stream = streams[index]
            if let steps = stream.steps(to: page), steps <= max(1, stream.ahead + Prefetcher.slack) {
                return advance(index, to: page)
            }
        }
        begin(region: region, page: page)
        return nil
    }

    private mutating func advance(_ index: Int, to page: Int) -> Ahead? {
        var stream = streams[index]
        defer { streams[index] = stream }
        stream.touched = time
        stream.newest = page
        let stride = stream.stride
        // Down as up: compared along the way.
        let isBehind = stream.window == 0 || (page - stream.next) * stride.signum() >= 0
        if isBehind { stream.next = page + stride }
        guard stream.window == 0 || stream.ahead < stream.window / 2 else { return nil }
        let longest = unused * 3 > asked && asked > 512 ? Prefetcher.shortWindow : Prefetcher.longestWindow
        stream.window = min(longest, max(Prefetcher.firstWindow, stream.window * 2))
        let room = stride > 0 ? pageCounts[stream.region] - 1 - stream.next : stream.next
        let inside = room < 0 ? 0 : room / abs(stride) + 1
        let count = min(inside, stream.window - stream.ahead)
        guard count > 0 else { return nil }
        let ahead = Ahead(first: stream.next, stride: stride, count: count)
        stream.next += count * stride
        asked += count
        return ahead
    }

    /// A fault that is on no stream's way: the second or third of one, or the first of a new one.
    private mutating func begin(region: Int, page: Int) {
        var oldest = 0
        for index in streams.indices {
            let stream = streams[index]
            let distance = page - stream.newest
            if stream.region == region, stream.window == 0, distance != 0,
                abs(distance) <= Prefetcher.longestStride
            {
                streams[index].newest = page
                streams[index].stride = distance
                streams[index].touched = time
                return
            }
            if stream.touched < streams[oldest].touched { oldest = index }
        }
        let stream = Stream(region: region, newest: page, next: page, touched: time)
        if streams.count < Prefetcher.streamCount {
            streams.append(stream)
        } else {
            abandoned += streams[oldest].ahead
            streams[oldest] = stream
        }
    }
}
