import DestinationAgent
import LinuxSystem
import PageProtocol

/// What must outlive the worker that serves a guest, in a memory file: which pages have been placed or dropped, the events
/// that were read, and which snapshot they came from.
///
/// | offset | what |
/// |---|---|
/// | 0 | words of 8 bytes: 1 once the snapshot is known, its bytes, its modification time |
/// | 24 | since when no server is there, in nanoseconds of the monotonic clock, 0 while there is one |
/// | 32 | 1 while the guest's process is held stopped |
/// | 40 | when the guest attached, in nanoseconds of the monotonic clock; 0 before |
/// | 48 | 1 once the record of its working set was written |
/// | 56 | when the guest last went on after it was held, in nanoseconds of the monotonic clock |
/// | 4096 | the events, as ``Removals`` keeps them |
/// | 8192 | a bit a page for each region, each bitmap from a multiple of 64 on |
/// | behind them | where touches are recorded, what ``TouchLog`` keeps |
struct SessionMemory: Sendable {
    private static let eventsOffset = 4096
    private static let bitmapsOffset = 8192

    let removals: Removals
    let resident: [PageBitmap]
    /// Where touches are recorded.
    let touches: TouchLog?
    private let memory: SharedMemory

    /// Bytes that a guest's session takes.
    static func byteCount(for task: GuestTask) -> Int {
        let bits = task.regions.reduce(bitmapsOffset) { $0 + bitmapBytes($1) }
        let record = task.settings.record == nil ? 0 : TouchLog.byteCount(capacity: recordCapacity(task))
        return (bits + record + 4095) & ~4095
    }

    /// Each page can be touched first once; more than a million are not recorded.
    private static func recordCapacity(_ task: GuestTask) -> Int {
        min(1 << 20, task.regions.reduce(0) { $0 + $1.pageCount })
    }

    private static func bitmapBytes(_ region: GuestTask.Region) -> Int {
        (PageBitmap.byteCount(forPages: region.pageCount) + 63) & ~63
    }

    init(_ file: borrowing MemoryFile, of task: GuestTask) throws(SystemError) {
        let memory = try SharedMemory(file)
        removals = try Removals(in: memory, at: SessionMemory.eventsOffset)
        // What the kernel writes there must never have to be brought back from a disk first.
        try memory.lock(at: SessionMemory.eventsOffset, byteCount: Removals.byteCount)
        resident = SessionMemory.bitmaps(in: memory, of: task)
        self.memory = memory
        let words = SessionMemory.words(of: memory)
        if words[5] == 0 { words[5] = Int64(MonotonicClock.now()) }
        touches =
            task.settings.record == nil
            ? nil
            : TouchLog(
                in: memory,
                at: SessionMemory.bitmapsOffset + task.regions.reduce(0) { $0 + SessionMemory.bitmapBytes($1) },
                capacity: SessionMemory.recordCapacity(task),
                firstPages: task.regions.map { UInt32($0.offset / UInt64($0.pageSize)) },
                deadline: UInt64(bitPattern: words[5]) &+ UInt64(task.settings.recordMilliseconds) * 1_000_000
            )
    }

    private static func bitmaps(in memory: SharedMemory, of task: GuestTask) -> [PageBitmap] {
        var offset = bitmapsOffset
        return task.regions.map { region in
            defer { offset += bitmapBytes(region) }
            return PageBitmap(pageCount: region.pageCount, in: memory, at: offset)
        }
    }

    /// Pages that have been placed or dropped by now, by whichever process.
    func countResident(of task: GuestTask) -> Int {
        SessionMemory.bitmaps(in: memory, of: task).reduce(0) { $0 + $1.count }
    }

    private var words: UnsafeMutablePointer<Int64> { SessionMemory.words(of: memory) }

    private static func words(of memory: SharedMemory) -> UnsafeMutablePointer<Int64> {
        memory.piece(at: 0, byteCount: 64).bindMemory(to: Int64.self, capacity: 8)
    }

    /// When the guest attached, in nanoseconds of ``MonotonicClock``.
    var attached: UInt64 { UInt64(bitPattern: words[5]) }

    /// Whether the record of the working set was written.
    var isRecorded: Bool {
        get { words[6] == 1 }
        nonmutating set { words[6] = newValue ? 1 : 0 }
    }

    /// The snapshot that pages have come from; nil before the first. Used by one thread.
    var snapshot: SnapshotIdentity? {
        guard words[0] == 1 else { return nil }
        return SnapshotIdentity(byteCount: UInt64(bitPattern: words[1]), modified: words[2])
    }

    /// Since when no server is there, in nanoseconds of ``MonotonicClock``; nil while there is one.
    var lostSince: UInt64? {
        get { words[3] == 0 ? nil : UInt64(bitPattern: words[3]) }
        nonmutating set { words[3] = Int64(bitPattern: newValue ?? 0) }
    }

    /// Whether the guest's process is held stopped.
    var isHeld: Bool {
        get { words[4] == 1 }
        nonmutating set { words[4] = newValue ? 1 : 0 }
    }

    /// When the guest last went on after it was held, in nanoseconds of ``MonotonicClock``; 0 if it never was.
    var wentOn: UInt64 {
        get { UInt64(bitPattern: words[7]) }
        nonmutating set { words[7] = Int64(bitPattern: newValue) }
    }

    func remember(_ snapshot: SnapshotIdentity) {
        words[1] = Int64(bitPattern: snapshot.byteCount)
        words[2] = snapshot.modified
        // The last: what is half written counts as nothing.
        words[0] = 1
    }
}
