import LinuxSystem
import Synchronization

/// Faults on pages that were placed before and cannot be answered now, since no memory is left, or since the same
/// answer was given too often.
///
/// The faults are raised again after a pause. Only the thread that read them uses this value.
struct UnansweredFaults: ~Copyable {
    private static let capacity = 64
    /// Nanoseconds before the faults are raised again, and between two reports of a reason.
    static let pause: UInt64 = 1_000_000_000

    private let memory: ArrivingMemory
    private let onEvent: @Sendable (PageFetcher.Event) -> Void
    private var faults: [Fault] = []
    /// Whether there were more faults than the list can hold.
    private var isFull = false
    private var due: UInt64 = 0

    init(of memory: ArrivingMemory, _ onEvent: @escaping @Sendable (PageFetcher.Event) -> Void) {
        self.memory = memory
        self.onEvent = onEvent
    }

    /// Milliseconds until the faults must be raised again; `Int32.max` if there are none.
    @inline(__always)
    var interval: Int32 { faults.isEmpty ? .max : 1000 }

    /// Records a fault, and reports its reason at most once per ``pause``.
    @inline(never)
    mutating func note(_ fault: Fault, because failure: PlacementFailure) {
        if faults.isEmpty { due = MonotonicClock.now() + UnansweredFaults.pause }
        isFull = faults.count == UnansweredFaults.capacity
        if !isFull { faults.append(fault) }
        memory.tell(fault, failure, onEvent)
    }

    /// Raises the faults again when they are due: each returns as an event, and is answered or recorded again.
    @inline(__always)
    mutating func raiseAgain() {
        guard !faults.isEmpty else { return }
        raiseWhenDue()
    }

    @inline(never)
    private mutating func raiseWhenDue() {
        guard MonotonicClock.now() >= due else { return }
        // `wakeAll` also wakes readers of pages that are on their way. Such a reader faults again, and its page is not
        // requested twice.
        if isFull { memory.wakeAll() }
        for fault in faults {
            let range = memory.ranges[fault.region]
            memory.userfaultfd.wake(range.address(ofPage: fault.page), byteCount: range.pageSize)
        }
        faults.removeAll(keepingCapacity: true)
        isFull = false
    }
}

extension ArrivingMemory {
    /// Reports that a fault cannot be answered, at most once per ``UnansweredFaults/pause``.
    func tell(
        _ fault: Fault,
        _ failure: PlacementFailure,
        _ onEvent: @Sendable (PageFetcher.Event) -> Void
    ) {
        // A shortage for which pages wait is reported as a whole.
        if waitsForMemory, let lacking = failure.shortage { return shortage.note(lacking) }
        let now = MonotonicClock.now()
        let last = lastTold.load(ordering: .relaxed)
        guard last == 0 || now - last >= UnansweredFaults.pause,
            lastTold.compareExchange(expected: last, desired: now, ordering: .relaxed).exchanged
        else { return }
        let reason = "a fault on page \(fault.page) of region \(fault.region) waits: \(failure.reason)"
        onEvent(.faultUnanswered(reason: reason))
    }
}
