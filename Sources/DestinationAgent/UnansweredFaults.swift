import LinuxSystem
import Synchronization

/// Faults on pages that had been placed before, and that cannot be answered for now: no memory is left for them. They are
/// raised again after a while. Only the thread that read them has them.
struct UnansweredFaults: ~Copyable {
    private static let capacity = 64
    /// Nanoseconds until they are raised again, and between two times that a reason is told.
    static let pause: UInt64 = 1_000_000_000

    private let memory: ArrivingMemory
    private let onEvent: @Sendable (DestinationAgent.Event) -> Void
    private var addresses: [UInt64] = []
    /// Whether there are more.
    private var isFull = false
    private var due: UInt64 = 0

    init(of memory: ArrivingMemory, _ onEvent: @escaping @Sendable (DestinationAgent.Event) -> Void) {
        self.memory = memory
        self.onEvent = onEvent
    }

    /// Milliseconds until they are to be raised again; the greatest number if there are none.
    @inline(__always)
    var interval: Int32 { addresses.isEmpty ? .max : 1000 }

    /// Notes a fault. Its reason is told, but not each time.
    @inline(never)
    mutating func note(_ address: UInt64, because failure: PlacementFailure) {
        if addresses.isEmpty { due = MonotonicClock.now() + UnansweredFaults.pause }
        isFull = addresses.count == UnansweredFaults.capacity
        if !isFull { addresses.append(address) }
        memory.tell(address, failure, onEvent)
    }

    /// Raises the faults again once it is time: each comes as an event, and is answered or noted anew.
    @inline(__always)
    mutating func raiseAgain() {
        guard !addresses.isEmpty else { return }
        raiseWhenDue()
    }

    @inline(never)
    private mutating func raiseWhenDue() {
        guard MonotonicClock.now() >= due else { return }
        // Who waits for a page that is on its way waits on: it is not asked for twice.
        if isFull { memory.wakeAll() }
        for address in addresses {
            guard let (region, page) = memory.place(of: address) else { continue }
            let range = memory.ranges[region]
            memory.userfaultfd.wake(range.address(ofPage: page), byteCount: range.pageSize)
        }
        addresses.removeAll(keepingCapacity: true)
        isFull = false
    }
}

extension ArrivingMemory {
    /// Tells that a fault cannot be answered, at most once in a while.
    func tell(
        _ address: UInt64,
        _ failure: PlacementFailure,
        _ onEvent: @Sendable (DestinationAgent.Event) -> Void
    ) {
        let now = MonotonicClock.now()
        let last = lastTold.load(ordering: .relaxed)
        guard last == 0 || now - last >= UnansweredFaults.pause,
            lastTold.compareExchange(expected: last, desired: now, ordering: .relaxed).exchanged,
            let (region, page) = place(of: address)
        else { return }
        onEvent(.faultUnanswered(reason: "page \(page) of region \(region) waits: \(failure.reason)"))
    }
}
