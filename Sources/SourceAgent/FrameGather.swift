import LinuxSystem
import PageProtocol

/// Frames on their way into one gathered send: headers kept here, pages left where they are.
struct FrameGather: ~Copyable {
    private static let capacity = 64
    private let headers: UnsafeMutableRawPointer
    private var pieces = GatherBuffer(capacity: 2 * capacity)
    private var frames = 0
    /// Bytes of pages gathered since the last flush.
    private(set) var bodyBytes = 0

    init() {
        headers = .allocate(byteCount: FrameGather.capacity * LaneFrame.encodedByteCount, alignment: 8)
    }

    deinit {
        headers.deallocate()
    }

    var isFull: Bool { frames == FrameGather.capacity }

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

    /// Sends what was gathered.
    ///
    /// - Returns: bytes of pages sent.
    @inline(__always)
    mutating func flush(to socket: borrowing StreamSocket) throws(SystemError) -> Int {
        guard frames > 0 else { return 0 }
        defer {
            frames = 0
            bodyBytes = 0
        }
        try socket.send(&pieces)
        return bodyBytes
    }
}
