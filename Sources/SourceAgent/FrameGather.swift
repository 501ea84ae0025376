import LinuxSystem
import PageProtocol

/// Frames on their way into one gathered send: headers kept here, pages left where they are or copied.
struct FrameGather: ~Copyable {
    private static let capacity = 64
    private let headers: UnsafeMutableRawPointer
    /// A header and a body for each frame, and before them the rest of a body whose header has been sent.
    private var pieces = GatherBuffer(capacity: 2 * capacity + 1)
    private var frames = 0
    /// Bytes of pages that are copied before a send, so few that they stay in the processor's cache.
    private static let copyCapacity = 64 * 4096
    /// Where pages are copied to; nil where they are left in place.
    private let copies: UnsafeMutableRawPointer?
    private var copied = 0
    /// Bytes of pages gathered since the last flush.
    private(set) var bodyBytes = 0

    init(copies: Bool = false) {
        self.copies = copies ? .allocate(byteCount: FrameGather.copyCapacity, alignment: 4096) : nil
        headers = .allocate(byteCount: FrameGather.capacity * LaneFrame.encodedByteCount, alignment: 8)
    }

    deinit {
        headers.deallocate()
        copies?.deallocate()
    }

    /// Whether the next frame, or more of a body, has to wait for a send.
    var isFull: Bool { frames == FrameGather.capacity || copied == FrameGather.copyCapacity || pieces.room < 2 }

    /// Adds a frame; `body` stays in place until it has been sent.
    @inline(__always)
    mutating func add(_ frame: LaneFrame, body: UnsafeMutableRawPointer? = nil) {
        let header = headers + frames * LaneFrame.encodedByteCount
        frame.encode(into: header)
        frames += 1
        pieces.append(header, byteCount: LaneFrame.encodedByteCount)
        guard let body else { return }
        pieces.append(body, byteCount: Int(frame.bodyByteCount))
        if frame.kind == .pages { bodyBytes += Int(frame.bodyByteCount) }
    }

    /// Adds a copy of what follows the newest frame, as much of it as there is room for before the next send.
    ///
    /// - Returns: bytes copied; not 0 unless it is full.
    @inline(__always)
    mutating func copy(_ body: UnsafeRawPointer, atMost byteCount: Int) -> Int {
        guard let copies else { preconditionFailure("a gather that leaves pages in place copies none") }
        let count = min(byteCount, FrameGather.copyCapacity - copied)
        (copies + copied).copyMemory(from: body, byteCount: count)
        pieces.append(copies + copied, byteCount: count)
        copied += count
        bodyBytes += count
        return count
    }

    /// Sends what was gathered.
    ///
    /// - Returns: bytes of pages sent.
    @inline(__always)
    mutating func flush(to socket: borrowing StreamSocket) throws(SystemError) -> Int {
        guard frames > 0 || copied > 0 else { return 0 }
        defer {
            frames = 0
            copied = 0
            bodyBytes = 0
        }
        try socket.send(&pieces)
        return bodyBytes
    }
}
