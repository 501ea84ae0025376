/// Where a thread is: all that it needs to go on elsewhere.
struct ThreadState: Hashable, Sendable {
    /// Its draws.
    var random: RandomStream
    /// The page it comes to next, in the thread's own numbering; for zipf and kv that of the sweep.
    var cursor: UInt64 = 0
    /// Operations since the workload's birth, on all hosts.
    var operations: UInt64 = 0
}

/// A thread's work: each step is one operation. Loops are generic over it, so that a step costs no dispatch.
protocol AccessStepper {
    /// Where the thread is, between two steps.
    var state: ThreadState { get set }

    /// Does one operation.
    mutating func step()
}

/// Which of its pages a thread touches next, where that does not depend on what the pages hold.
protocol PageOrder {
    /// A page in the thread's own numbering.
    mutating func next(_ state: inout ThreadState) -> Int
}

/// Every page after the one before it, round and round.
struct SequentialOrder: PageOrder {
    let count: Int

    @inline(__always)
    mutating func next(_ state: inout ThreadState) -> Int {
        let page = Int(state.cursor)
        state.cursor = page &+ 1 == count ? 0 : UInt64(page &+ 1)
        return page
    }
}

/// Uniform draws.
struct RandomOrder: PageOrder {
    let count: Int

    @inline(__always)
    mutating func next(_ state: inout ThreadState) -> Int {
        state.random.next(below: count)
    }
}

/// Zipf draws over scrambled pages; one operation in 16 is the next step of a sweep, so that every page has its turn.
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

/// Whether the next operation writes.
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

/// Goes from page to page as the pages say.
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
            // A wrong page has been noted; the way goes on past it.
            state.cursor = (state.cursor + 1) % UInt64(count)
        }
    }
}
