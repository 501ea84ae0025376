/// The fixed 24 bytes that begin every frame of the urgent and bulk connections after JOIN.
///
/// Encoding and decoding neither allocate nor lock.
public struct LaneFrame: Hashable, Sendable {
    /// What a lane frame is; the numbers are those of ``FrameKind``.
    public enum Kind: UInt16, CaseIterable, Hashable, Sendable {
        /// The destination asks for the run.
        case pageRequest = 0x41
        /// The bytes of the run's pages follow.
        case pages = 0x42
        /// The run's pages hold only zeros.
        case zeroes = 0x43
        /// Asks for a ``probeReply``; the run is all zeros.
        case probe = 0x44
        /// 4096 bytes follow; the run is all zeros.
        case probeReply = 0x45
    }

    /// Bytes of an encoded frame without the bytes that follow it.
    public static let encodedByteCount = 24

    /// What the frame is.
    public let kind: Kind
    /// The pages it is about.
    public let run: PageRun
    /// Bytes that follow the 24: pages of PAGES, 4096 of PROBE_REPLY, none of the others.
    public let bodyByteCount: UInt32

    @inlinable
    init(kind: Kind, run: PageRun, bodyByteCount: UInt32) {
        self.kind = kind
        self.run = run
        self.bodyByteCount = bodyByteCount
    }

    /// Asks for a run of at most ``PageRun/maxCount(pageSize:)`` pages.
    @inlinable
    public static func pageRequest(_ run: PageRun) -> LaneFrame {
        LaneFrame(kind: .pageRequest, run: run, bodyByteCount: 0)
    }

    /// Announces the bytes of a run of at most ``PageRun/maxCount(pageSize:)`` pages.
    ///
    /// - Parameters:
    ///   - run: pages whose bytes together are at most 1 GiB, or this traps.
    ///   - pageSize: bytes of a page of the run's region.
    @inlinable
    public static func pages(_ run: PageRun, pageSize: UInt32) -> LaneFrame {
        let bytes = run.count * pageSize
        precondition(bytes <= Wire.maxPageSize, "a PAGES frame carries at most 1 GiB")
        return LaneFrame(kind: .pages, run: run, bodyByteCount: bytes)
    }

    /// Says that a run, as long as the region allows, holds only zeros.
    @inlinable
    public static func zeroes(_ run: PageRun) -> LaneFrame {
        LaneFrame(kind: .zeroes, run: run, bodyByteCount: 0)
    }

    /// Asks for a probe's reply.
    @inlinable
    public static var probe: LaneFrame { LaneFrame(kind: .probe, run: .zero, bodyByteCount: 0) }

    /// Announces the 4096 bytes that answer a probe.
    @inlinable
    public static var probeReply: LaneFrame {
        LaneFrame(kind: .probeReply, run: .zero, bodyByteCount: Wire.probeReplyBytes)
    }
}
