public import LinuxSystem
import PageProtocol
import Synchronization

/// Reads the events of a userfaultfd that tells of memory which its process drops (EVENT_REMOVE), and keeps dropped pages
/// from coming back.
///
/// While such an event is unread, no page can be placed (EAGAIN); once it has been read, the kernel drops the pages, and
/// they read as zeros from then on. So events are read, and pages placed, in turn: a page that was still missing when it
/// was dropped counts as resident, and is never placed.
///
/// Events are read into memory that may outlive this process. Whoever serves after it applies what it had read.
public final class Removals: Sendable {
    private static let capacity = 64
    /// Bytes of memory that the events take.
    public static let byteCount = capacity * Userfaultfd.EventBuffer.eventBytes

    /// Taken in turn.
    struct Turn: ~Copyable {
        fileprivate var events: Userfaultfd.EventBuffer
        /// Faults that were read and that no thread has taken yet.
        fileprivate var faults: [PageFault] = []
    }

    private let turn: Mutex<Turn>
    /// Raised when faults were read by who doesn't serve them.
    let areFaultsWaiting: EventDescriptor

    /// Takes up what stands in a piece of memory, which at first holds zeros.
    ///
    /// - Parameter offset: where the piece begins, in bytes; a multiple of 64.
    public init(in memory: SharedMemory, at offset: Int) throws(SystemError) {
        areFaultsWaiting = try EventDescriptor()
        var turn = Turn(events: Userfaultfd.EventBuffer(capacity: Removals.capacity, in: memory, at: offset))
        turn.faults.reserveCapacity(Removals.capacity)
        self.turn = Mutex(turn)
    }

    /// Does something while nobody else reads events or places pages.
    @inline(__always)
    func inTurn<Result, Failure>(
        _ body: (inout Turn) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try turn.withLock { (turn) throws(Failure) in try body(&turn) }
    }

    /// Reads the events that wait, and takes the faults among them and those that were read before.
    func takeFaults(of memory: ArrivingMemory, into faults: inout [PageFault]) throws(SystemError) {
        areFaultsWaiting.clear()
        try inTurn { (turn) throws(SystemError) in
            try read(from: memory, in: &turn)
            swap(&turn.faults, &faults)
        }
    }

    /// Reads events because pages cannot be placed before that.
    func readAhead(from memory: ArrivingMemory, in turn: inout Turn) throws(SystemError) {
        try read(from: memory, in: &turn)
        if !turn.faults.isEmpty { areFaultsWaiting.raise() }
    }

    /// Reads what was told before memory was given back: whoever drops memory waits until it is read.
    func drain(_ memory: ArrivingMemory) throws(SystemError) {
        try inTurn { (turn) throws(SystemError) in
            try read(from: memory, in: &turn)
            turn.faults.removeAll(keepingCapacity: true)
        }
    }

    /// Applies what an earlier process had read and not applied. Its faults are raised again when they are woken.
    func takeUp(_ memory: ArrivingMemory) {
        inTurn { turn in
            apply(to: memory, in: &turn)
            turn.faults.removeAll(keepingCapacity: true)
        }
    }

    private func read(from memory: ArrivingMemory, in turn: inout Turn) throws(SystemError) {
        try memory.userfaultfd.read(into: &turn.events)
        apply(to: memory, in: &turn)
    }

    /// A fault that was read before the event of the same page comes behind it all the same: faults are served later.
    private func apply(to memory: ArrivingMemory, in turn: inout Turn) {
        for index in 0..<turn.events.count {
            switch turn.events[index] {
            case .removed(let start, let end): memory.noteRemoved(from: start, to: end)
            case .fault(let address, let thread): turn.faults.append(PageFault(address: address, thread: thread))
            case .other: break
            }
        }
        turn.events.clear()
    }
}

/// A fault as the kernel tells it.
struct PageFault: Hashable {
    var address: UInt64
    var thread: UInt32
}
