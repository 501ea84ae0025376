/// The state of a thread, from which another host continues its work.
struct ThreadState: Hashable, Sendable {
    /// The stream of the thread's random draws.
    var random: RandomStream
    /// The next page, in the thread's own numbering; for `zipf` and `kv`, the next page of the sweep.
    var cursor: UInt64 = 0
    /// Operations on all hosts since the workload was made.
    var operations: UInt64 = 0
}

/// A thread's work, of which each step is one operation.
///
/// Loops are generic over the stepper, so that a step costs no dynamic dispatch.
protocol AccessStepper {
    /// The thread's state between two steps.
    var state: ThreadState { get set }

    /// Does one operation.
    mutating func step()
}

/// An order of a thread's pages that does not depend on the pages' contents.
protocol PageOrder {
    /// The next page, in the thread's own numbering.
    mutating func next(_ state: inout ThreadState) -> Int
}

/// All pages in order, over and over.
struct SequentialOrder: PageOrder {
    let count: Int

    @inline(__always)
    mutating func next(_ state: inout ThreadState) -> Int {
        let page = Int(state.cursor)
        state.cursor = page &+ 1 == count ? 0 : UInt64(page &+ 1)
        return page
    }
}

/// Pages drawn uniformly.
struct RandomOrder: PageOrder {
    let count: Int

    @inline(__always)
    mutating func next(_ state: inout ThreadState) -> Int {
        state.random.next(below: count)
    }
}

/// Pages drawn from a Zipf distribution, with one operation in 16 for a sweep that reaches every page.
struct ZipfOrder: PageOrder {
    static let sweepInterval: UInt64 = 16

    let sampler: ZipfSampler
    let scramble: Scramble
    var sweep: SequentialOrder

    init(count: Int, seed: UInt64) {
        sampler = ZipfSampler(count: count)
        scramble = Scramble(count: count, seed: seed)
        sweep = SequentialOrder(count: count)
    }

    @inline(__always)
    mutating func next(_ state: inout ThreadState) -> Int {
        if state.operations % ZipfOrder.sweepInterval == 0 { return sweep.next(&state) }
        return scramble(sampler.next(&state.random))
    }
}

/// Decides at random whether the next operation writes.
struct WriteChoice: Sendable {
    private let threshold: UInt64

    init(fraction: Double) {
        threshold = UInt64(fraction * 0x1p63)
    }

    @inline(__always)
    func next(_ random: inout RandomStream) -> Bool {
        random.next() >> 1 < threshold
    }
}

/// Reads and writes pages in an order.
struct PageStepper<Order: PageOrder>: AccessStepper {
    let access: PageAccess
    let thread: Int
    let threadCount: Int
    let writes: WriteChoice
    var order: Order
    var state: ThreadState

    @inline(__always)
    mutating func step() {
        let page = order.next(&state) &* threadCount &+ thread
        _ = access.operate(on: page, write: writes.next(&state.random))
    }
}

/// Follows the pages' links: each page holds the index of the next.
struct ChaseStepper: AccessStepper {
    let access: PageAccess
    let thread: Int
    let threadCount: Int
    let count: Int
    let writes: WriteChoice
    var state: ThreadState

    @inline(__always)
    mutating func step() {
        let page = Int(state.cursor) &* threadCount &+ thread
        let next = access.operate(on: page, write: writes.next(&state.random))
        let (local, owner) = (next ?? .max).quotientAndRemainder(dividingBy: UInt64(threadCount))
        if next != nil && owner == UInt64(thread) && local < UInt64(count) {
            state.cursor = local
        } else {
            // The wrong page was noted already. The chase continues with the page after it.
            state.cursor = (state.cursor + 1) % UInt64(count)
        }
    }
}
