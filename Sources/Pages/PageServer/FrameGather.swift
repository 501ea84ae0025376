import LinuxSystem
import PageProtocol

/// Frames that are collected for one gathered send, with headers stored here and pages left in place or copied.
struct FrameGather: ~Copyable {
    private static let capacity = 64
    private let headers: UnsafeMutableRawPointer
    /// The pieces of the send: a header and a body for each frame, preceded by the rest of a body whose header was
    /// already sent.
    private var pieces = GatherBuffer(capacity: 2 * capacity + 1)
    private var frames = 0
    /// The limit on bytes of pages copied for one send, small enough for the processor's cache.
    private static let copyCapacity = 64 * 4096
    /// The buffer to which pages are copied; nil if pages are left in place.
    private let copies: UnsafeMutableRawPointer?
    private let staging: StagingBuffer?
    private var copied = 0
    /// Bytes of pages gathered since the previous flush, as they are sent.
    private(set) var bodyBytes = 0

    init(copies: Bool = false) {
        if copies {
            let buffer = StagingBuffer(byteCount: FrameGather.copyCapacity)
            self.copies = buffer.bytes.baseAddress
            staging = consume buffer
        } else {
            self.copies = nil
            staging = nil
        }
        headers = .allocate(byteCount: FrameGather.capacity * LaneFrame.encodedByteCount, alignment: 8)
    }

    deinit {
        headers.deallocate()
    }

    /// Whether ``flush(to:)`` must be called before another frame, or more of a body, can be added.
    var isFull: Bool { frames == FrameGather.capacity || copied == FrameGather.copyCapacity || pieces.room < 2 }

    /// Adds a frame; `body` must stay valid and unchanged until ``flush(to:)`` returns.
    @inline(__always)
    mutating func add(_ frame: LaneFrame, body: UnsafeMutableRawPointer? = nil) {
        let header = headers + frames * LaneFrame.encodedByteCount
        frame.encode(into: header)
        frames += 1
        pieces.append(header, byteCount: LaneFrame.encodedByteCount)
        guard let body else { return }
        pieces.append(body, byteCount: Int(frame.bodyByteCount))
        if frame.kind != .probeReply { bodyBytes += Int(frame.bodyByteCount) }
    }

    /// Copies the next part of the newest frame's body, as far as there is room.
    ///
    /// - Returns: the bytes copied; 0 only if the gather is full.
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

    /// Sends the gathered frames.
    ///
    /// - Returns: the bytes of pages sent, compressed or not.
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
