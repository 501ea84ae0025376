package import LinuxSystem
import PageProtocol
import Synchronization
import SystemPackage

/// Reads the events of a userfaultfd by which a process reports what it does to its memory.
///
/// While an event is unread, no page can be placed (EAGAIN), and the process waits. Once the event has been read, the
/// kernel drops, unmaps or copies the memory. So events are read and pages are placed in turn, under one lock.
///
/// | event | what follows |
/// |---|---|
/// | private pages are dropped, or pages are unmapped | Those that were missing count as resident, and are never placed. |
/// | missing pages of a memory file are dropped | The memory is lost: whether these pages read as zeros cannot be told. |
/// | a mapping is moved | The memory is lost: its missing pages are read at other addresses. |
/// | a fork | The child's userfaultfd stays open, so that its missing pages block their readers. |
///
/// After a loss no page is placed, and readers of missing pages wait.
///
/// Events are read into memory that may outlive this process. The next process that serves the memory applies the
/// events that this process had read but not applied.
package final class MemoryEvents: Sendable {
    private static let capacity = 64
    /// Bytes of memory that the events need.
    package static let byteCount = capacity * Userfaultfd.EventBuffer.eventBytes

    /// The state that only the thread whose turn it is may use.
    struct Turn: ~Copyable {
        fileprivate var events: Userfaultfd.EventBuffer
        /// Faults that were read and that no thread has taken yet.
        fileprivate var faults: [PageFault] = []
        /// Why no page can be placed any more; nil if pages can.
        fileprivate var loss: PlacementFailure?
        /// Whether an address may belong to another page than it did at first.
        fileprivate var hasMoved = false
        /// Whether the process has forked.
        fileprivate var hasForked = false
    }

    private let turn: Mutex<Turn>
    /// The children that the process has forked.
    private let children: UnservedMemory
    /// Raised when a thread that does not serve faults has read some.
    let areFaultsWaiting: EventDescriptor

    /// Uses the events in a piece of memory, which must hold zeros at first.
    ///
    /// - Parameters:
    ///   - memory: memory that may outlive this process.
    ///   - offset: the offset of the piece in bytes; a multiple of 64.
    package init(in memory: SharedMemory, at offset: Int) throws(SystemError) {
        areFaultsWaiting = try EventDescriptor()
        children = try UnservedMemory()
        var turn = Turn(events: Userfaultfd.EventBuffer(capacity: MemoryEvents.capacity, in: memory, at: offset))
        turn.faults.reserveCapacity(MemoryEvents.capacity)
        self.turn = Mutex(turn)
    }

    /// Places pages by `body` while no other thread reads events or places pages.
    ///
    /// - Throws: what `body` throws, or why no page can be placed any more.
    @inline(__always)
    func placeInTurn<Result>(
        _ body: () throws(PlacementFailure) -> Result
    ) throws(PlacementFailure) -> Result {
        try turn.withLock { (turn) throws(PlacementFailure) in
            if let loss = turn.loss { throw loss }
            return try body()
        }
    }

    /// The number of children whose memory exists and lacks pages for ever.
    var childCount: Int { children.childCount }

    /// Reads the waiting events, and takes their faults and those that were read earlier.
    func takeFaults(of memory: ArrivingMemory, into faults: inout [PageFault]) throws(SystemError) {
        areFaultsWaiting.clear()
        try turn.withLock { (turn) throws(SystemError) in
            try read(from: memory, in: &turn)
            swap(&turn.faults, &faults)
        }
    }

    /// Reads events, since no page can be placed before that.
    func readAhead(from memory: ArrivingMemory) throws(SystemError) {
        try turn.withLock { (turn) throws(SystemError) in
            try read(from: memory, in: &turn)
            if !turn.faults.isEmpty { areFaultsWaiting.raise() }
        }
    }

    /// Reads the events that came before the memory was unregistered: a thread that drops memory waits until its event
    /// is read.
    func drain(_ memory: ArrivingMemory) throws(SystemError) {
        try turn.withLock { (turn) throws(SystemError) in
            try read(from: memory, in: &turn)
            turn.faults.removeAll(keepingCapacity: true)
        }
    }

    /// Applies the events that an earlier process had read but not applied; their faults are raised again by a later
    /// wake.
    func takeUp(_ memory: ArrivingMemory) {
        turn.withLock { turn in
            // A child's userfaultfd was open in the earlier process only, so that there is none to keep.
            apply(to: memory, in: &turn)
            turn.faults.removeAll(keepingCapacity: true)
        }
    }

    private func read(from memory: ArrivingMemory, in turn: inout Turn) throws(SystemError) {
        if children.isFull {
            throw SystemError(
                "read events from a userfaultfd",
                .tooManyOpenFiles,
                advice:
                    "the process has forked \(UnservedMemory.mostChildren) children that still live; end some of them"
            )
        }
        try memory.userfaultfd.read(into: &turn.events)
        for index in 0..<turn.events.count where turn.events[index] == .forked {
            children.keep(turn.events.takeChild(at: index))
            if !turn.hasForked { memory.onEvent(.forked) }
            turn.hasForked = true
        }
        apply(to: memory, in: &turn)
    }

    /// Applies the events that were read.
    ///
    /// Faults are served later, so a fault never precedes the removal of its own page. After a loss, no missing page
    /// counts as resident: mremap reports a moved mapping first, and then that the old addresses are unmapped.
    private func apply(to memory: ArrivingMemory, in turn: inout Turn) {
        for index in 0..<turn.events.count {
            switch turn.events[index] {
            case .fault(let address, let thread, let kind):
                turn.faults.append(PageFault(address: address, thread: thread, kind: kind))
            case .removed, .unmapped, .moved:
                guard turn.loss == nil, let loss = memory.take(turn.events[index]) else { break }
                turn.loss = loss
                if case .moved = turn.events[index] { turn.hasMoved = true }
                memory.onEvent(.memoryLost(reason: loss.reason))
            case .forked, .other: break
            }
        }
        turn.events.clear()
        // A mapping may have moved to where another page has been, whose content must not be given to its readers.
        if turn.hasMoved { turn.faults.removeAll(keepingCapacity: true) }
    }
}

/// A page fault as the kernel reports it.
struct PageFault: Hashable {
    var address: UInt64
    var thread: UInt32
    var kind: Userfaultfd.FaultKind
}
