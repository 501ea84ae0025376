import LinuxSystem
import PageFetcher
import PageProtocol

/// The state of a guest that must outlive its worker, in a memory file that all its workers map.
///
/// The state has the pages that were placed or dropped, the userfaultfd events that were read, and the snapshot's
/// identity. Words have 8 bytes. Times are nanoseconds of the monotonic clock.
///
/// | offset | content |
/// |---|---|
/// | 0 | the words of ``Word`` |
/// | 512, 768 | two places for the snapshot's identity: its length as u16, and its bytes as SNAPSHOT has them |
/// | 1024 | what the workers have counted, as ``WorkerFigures`` keeps it |
/// | 4096 | the events, as ``MemoryEvents`` keeps them |
/// | 8192 | one bit per page for each region, each bitmap at a multiple of 64 |
/// | behind the bitmaps | the touches, as ``TouchLog`` keeps them, if they are recorded |
struct SessionMemory: Sendable {
    /// The words at the beginning, by their place.
    private enum Word: Int {
        /// Which of the two places holds the snapshot's identity, 1 or 2; 0 before the snapshot is known.
        case identity = 0
        /// Since when no server is connected; 0 while one is.
        case lostSince = 3
        /// 1 while the guest is held.
        case held = 4
        /// When the guest attached; 0 before.
        case attached = 5
        /// 1 once the record of its working set was written.
        case recorded = 6
        /// When the guest last continued after it was held; 0 if it never was.
        case continued = 7
        /// The version of this layout, ``SessionMemory/version``.
        case version = 8
        /// The latest worker's process, and when it was started, as in `PeerProcess.Birth`.
        case worker = 9
        case workerStarted = 10
        /// When the latest worker last showed that it works; 0 if it need not.
        case beat = 11
        /// How fast the operator has ordered to fetch the rest, in bytes per second; 0 if the settings decide.
        case fill = 12
        /// The workers that were started.
        case workers = 13

        static let count = 14
    }

    /// Where the first of the two places for the snapshot's identity begins, and how far they are apart.
    private static let (identityOffset, identityRoom) = (512, 256)
    private static let figuresOffset = 1024
    private static let eventsOffset = 4096
    private static let bitmapsOffset = 8192

    let events: MemoryEvents
    let resident: [PageBitmap]
    /// The log of first touches; nil if they are not recorded.
    let touches: TouchLog?
    private let memory: SharedMemory

    /// The size of a guest's state, in bytes; a multiple of 4096.
    static func byteCount(for task: GuestTask) -> Int {
        let bits = task.regions.reduce(bitmapsOffset) { $0 + bitmapBytes($1) }
        let record = task.settings.record == nil ? 0 : TouchLog.byteCount(capacity: recordCapacity(task))
        return (bits + record + 4095) & ~4095
    }

    /// The most touches that are recorded: one for each page, and at most 2^20.
    private static func recordCapacity(_ task: GuestTask) -> Int {
        min(1 << 20, task.regions.reduce(0) { $0 + $1.pageCount })
    }

    private static func bitmapBytes(_ region: GuestTask.Region) -> Int {
        (PageBitmap.byteCount(forPages: region.pageCount) + 63) & ~63
    }

    /// The version of the layout, which a change of the layout increases.
    static let version: Int64 = 1

    /// Maps the state of a guest, whose file holds zeros at first.
    ///
    /// - Throws: ``ServiceFailure`` if the file is not the state of this guest, `SystemError` if it cannot be mapped.
    init(_ file: borrowing MemoryFile, of task: GuestTask) throws {
        let wanted = SessionMemory.byteCount(for: task)
        guard file.byteCount == wanted else {
            throw ServiceFailure(description: "its state has \(file.byteCount) bytes instead of \(wanted)")
        }
        let memory = try SharedMemory(file)
        let version = SessionMemory.words(of: memory)[.version]
        guard version == 0 || version == SessionMemory.version else {
            throw ServiceFailure(
                description: "its state has version \(version), and this is version \(SessionMemory.version)"
            )
        }
        SessionMemory.words(of: memory)[.version] = SessionMemory.version
        events = try MemoryEvents(in: memory, at: SessionMemory.eventsOffset)
        resident = SessionMemory.bitmaps(in: memory, of: task)
        self.memory = memory
        let words = SessionMemory.words(of: memory)
        if words[.attached] == 0 { words[.attached] = Int64(MonotonicClock.now()) }
        touches =
            task.settings.record == nil
            ? nil
            : TouchLog(
                in: memory,
                at: SessionMemory.bitmapsOffset + task.regions.reduce(0) { $0 + SessionMemory.bitmapBytes($1) },
                capacity: SessionMemory.recordCapacity(task),
                firstPages: task.regions.map { UInt32($0.offset / UInt64($0.pageSize)) },
                deadline: UInt64(bitPattern: words[.attached]) &+ UInt64(task.settings.recordMilliseconds) * 1_000_000
            )
    }

    /// Locks the events in memory, so that they are not swapped out when the kernel writes events into them.
    func lockEvents() throws(SystemError) {
        try memory.lock(at: SessionMemory.eventsOffset, byteCount: MemoryEvents.byteCount)
    }

    private static func bitmaps(in memory: SharedMemory, of task: GuestTask) -> [PageBitmap] {
        var offset = bitmapsOffset
        return task.regions.map { region in
            defer { offset += bitmapBytes(region) }
            return PageBitmap(pageCount: region.pageCount, in: memory, at: offset)
        }
    }

    /// The number of pages that all workers together have placed or seen dropped.
    func countResident(of task: GuestTask) -> Int {
        SessionMemory.bitmaps(in: memory, of: task).reduce(0) { $0 + $1.count }
    }

    private var words: Words { SessionMemory.words(of: memory) }

    private static func words(of memory: SharedMemory) -> Words {
        let byteCount = Word.count * MemoryLayout<Int64>.size
        return Words(
            base: memory.piece(at: 0, byteCount: byteCount).bindMemory(to: Int64.self, capacity: Word.count)
        )
    }

    private struct Words {
        let base: UnsafeMutablePointer<Int64>

        subscript(_ word: Word) -> Int64 {
            get { base[word.rawValue] }
            nonmutating set { base[word.rawValue] = newValue }
        }
    }

    /// When the guest attached, in nanoseconds of ``MonotonicClock``; never later than now, whatever the file says.
    var attached: UInt64 { min(UInt64(bitPattern: words[.attached]), MonotonicClock.now()) }

    /// Whether the working set's record was written.
    var isRecorded: Bool {
        get { words[.recorded] == 1 }
        nonmutating set { words[.recorded] = newValue ? 1 : 0 }
    }

    /// The snapshot that the guest's pages come from; nil before the first connection.
    ///
    /// Written by the thread that handles events, before the link's thread redials and reads it.
    var snapshot: SnapshotIdentity? {
        guard words[.identity] != 0 else { return nil }
        let place = identityPlace(words[.identity])
        let length = min(Int(place.load(as: UInt16.self)), SnapshotIdentity.maxEncodedBytes)
        let bytes = Array(UnsafeRawBufferPointer(start: place + 2, count: length))
        // An identity that cannot be read must not count as none, which every snapshot would match.
        return (try? SnapshotIdentity(encoded: bytes.span.bytes)) ?? .unreadable
    }

    private func identityPlace(_ number: Int64) -> UnsafeMutableRawPointer {
        let offset = SessionMemory.identityOffset + (number == 2 ? SessionMemory.identityRoom : 0)
        return memory.piece(at: offset, byteCount: SessionMemory.identityRoom)
    }

    /// Since when no server is connected, in nanoseconds of ``MonotonicClock``; nil while one is.
    var lostSince: UInt64? {
        get { words[.lostSince] == 0 ? nil : UInt64(bitPattern: words[.lostSince]) }
        nonmutating set { words[.lostSince] = Int64(bitPattern: newValue ?? 0) }
    }

    /// Whether the guest's process is held stopped.
    var isHeld: Bool {
        get { words[.held] == 1 }
        nonmutating set { words[.held] = newValue ? 1 : 0 }
    }

    /// When the guest last continued after it was held, in nanoseconds of ``MonotonicClock``; 0 if it never was.
    var continued: UInt64 {
        get { UInt64(bitPattern: words[.continued]) }
        nonmutating set { words[.continued] = Int64(bitPattern: newValue) }
    }

    /// The process that serves the guest, or did so last: its number, and when it was started; nil if none did.
    var worker: (id: Int32, started: UInt64)? {
        get {
            guard let id = Int32(exactly: words[.worker]), id > 0 else { return nil }
            return (id, UInt64(bitPattern: words[.workerStarted]))
        }
        nonmutating set {
            words[.workerStarted] = Int64(bitPattern: newValue?.started ?? 0)
            // Written last, so that a half-written process does not count.
            words[.worker] = Int64(newValue?.id ?? 0)
        }
    }

    /// When the worker last showed that it works, in nanoseconds of ``MonotonicClock``; 0 if it need not.
    ///
    /// A hint of one word, which the worker writes and the session reads.
    var beat: UInt64 {
        get { UInt64(bitPattern: words[.beat]) }
        nonmutating set { words[.beat] = Int64(bitPattern: newValue) }
    }

    /// How fast the operator has ordered to fetch the pages that the guest does not touch; nil if the settings decide.
    var fill: FillRate? {
        get {
            let rate = UInt64(bitPattern: words[.fill])
            return rate == 0 ? nil : FillRate(bytesPerSecond: rate)
        }
        nonmutating set { words[.fill] = Int64(bitPattern: newValue?.bytesPerSecond ?? 0) }
    }

    /// The workers that were started for the guest so far.
    var workers: Int {
        get { Int(max(0, min(words[.workers], 1 << 48))) }
        nonmutating set { words[.workers] = Int64(newValue) }
    }

    /// What the guest's workers have counted, written by the worker and read by the handler.
    ///
    /// Each number is a word of its own, so that a reader may see some numbers newer than others.
    var figures: WorkerFigures {
        get { WorkerFigures(words: UnsafeMutableBufferPointer(start: figureWords, count: WorkerFigures.wordCount)) }
        nonmutating set {
            for (index, word) in newValue.words.enumerated() where index < WorkerFigures.wordCount {
                figureWords[index] = word
            }
        }
    }

    private var figureWords: UnsafeMutablePointer<UInt64> {
        memory.piece(at: SessionMemory.figuresOffset, byteCount: WorkerFigures.wordCount * 8)
            .bindMemory(to: UInt64.self, capacity: WorkerFigures.wordCount)
    }

    /// What a worker must know of the guest's fate.
    var record: GuestFate.Record {
        GuestFate.Record(snapshot: snapshot, lostSince: lostSince, isHeld: isHeld, continued: continued)
    }

    func remember(_ snapshot: SnapshotIdentity) {
        let next: Int64 = words[.identity] == 1 ? 2 : 1
        let bytes = snapshot.encoded
        let place = identityPlace(next)
        place.storeBytes(of: UInt16(bytes.count), as: UInt16.self)
        (place + 2).copyMemory(from: bytes, byteCount: bytes.count)
        // Written last, so that a half-written identity does not count.
        words[.identity] = next
    }
}

extension SnapshotIdentity {
    /// An identity that no snapshot matches.
    fileprivate static let unreadable = SnapshotIdentity(byteCount: 0, proof: .unknown(kind: 0, value: [0]))
}
