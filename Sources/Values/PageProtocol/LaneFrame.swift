package import Compression

/// The fixed 24 bytes that begin every frame of the urgent and bulk connections after JOIN.
///
/// Encoding and decoding neither allocate nor lock.
package struct LaneFrame: Hashable, Sendable {
    /// What a lane frame is; the numbers are those of ``FrameKind``.
    package enum Kind: UInt16, CaseIterable, Hashable, Sendable {
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
        /// The destination asks for those pages of the run that have not been sent; no thread waits for them yet.
        case aheadRequest = 0x46
        /// The run was asked for ahead and had been sent before: its pages are on their way.
        case sent = 0x47
        /// The bytes of the run's pages follow, compressed together by liblz4.
        case pagesLZ4 = 0x48
        /// The bytes of the run's pages follow, compressed together by libzstd.
        case pagesZstd = 0x49

        /// The codec of the bytes that follow; nil if they are not compressed, or if there are none.
        package var codec: Codec? {
            switch self {
            case .pagesLZ4: .lz4
            case .pagesZstd: .zstd
            case .pageRequest, .pages, .zeroes, .probe, .probeReply, .aheadRequest, .sent: nil
            }
        }
    }

    /// Bytes of an encoded frame without the bytes that follow it.
    package static let encodedByteCount = 24

    /// What the frame is.
    package let kind: Kind
    /// The pages that the frame is about.
    package let run: PageRun
    /// Bytes that follow the 24: the pages of PAGES, or what they were compressed to; 4096 for PROBE_REPLY, none for the
    /// other kinds.
    package let bodyByteCount: UInt32

    @inlinable
    init(kind: Kind, run: PageRun, bodyByteCount: UInt32) {
        self.kind = kind
        self.run = run
        self.bodyByteCount = bodyByteCount
    }

    /// Asks for a run of at most ``PageRun/maxCount(pageSize:)`` pages.
    @inlinable
    package static func pageRequest(_ run: PageRun) -> LaneFrame {
        LaneFrame(kind: .pageRequest, run: run, bodyByteCount: 0)
    }

    /// Asks for the pages of a run of at most ``PageRun/maxCount(pageSize:)`` pages that have not been sent.
    @inlinable
    package static func aheadRequest(_ run: PageRun) -> LaneFrame {
        LaneFrame(kind: .aheadRequest, run: run, bodyByteCount: 0)
    }

    /// Says that a run which was asked for ahead had been sent before.
    @inlinable
    package static func sent(_ run: PageRun) -> LaneFrame {
        LaneFrame(kind: .sent, run: run, bodyByteCount: 0)
    }

    /// Announces the bytes of a run of at most ``PageRun/maxCount(pageSize:)`` pages.
    ///
    /// - Parameters:
    ///   - run: pages of at most 1 GiB together; a longer run traps.
    ///   - pageSize: bytes of a page of the run's region.
    @inlinable
    package static func pages(_ run: PageRun, pageSize: UInt32) -> LaneFrame {
        let bytes = run.count * pageSize
        precondition(bytes <= Wire.maxPageSize, "a PAGES frame carries at most 1 GiB")
        return LaneFrame(kind: .pages, run: run, bodyByteCount: bytes)
    }

    /// Announces the bytes to which a run of at most ``PageRun/maxCount(pageSize:)`` pages was compressed.
    ///
    /// - Parameters:
    ///   - run: pages of at most ``Wire/maxCompressedRunBytes`` bytes together.
    ///   - codec: the codec by which the pages were compressed together.
    ///   - byteCount: the compressed bytes, fewer than those of the pages.
    package static func compressed(_ run: PageRun, by codec: Codec, byteCount: Int) -> LaneFrame {
        let kind: Kind =
            switch codec {
            case .lz4: .pagesLZ4
            case .zstd: .pagesZstd
            }
        return LaneFrame(kind: kind, run: run, bodyByteCount: UInt32(byteCount))
    }

    /// Says that a run of any length inside its region holds only zeros.
    @inlinable
    package static func zeroes(_ run: PageRun) -> LaneFrame {
        LaneFrame(kind: .zeroes, run: run, bodyByteCount: 0)
    }

    /// Asks for a probe's reply.
    @inlinable
    package static var probe: LaneFrame { LaneFrame(kind: .probe, run: .zero, bodyByteCount: 0) }

    /// Announces the 4096 bytes that answer a probe.
    @inlinable
    package static var probeReply: LaneFrame {
        LaneFrame(kind: .probeReply, run: .zero, bodyByteCount: Wire.probeReplyBytes)
    }
}

extension LaneFrame.Kind {
    /// The same kind as a ``FrameKind``.
    var asFrameKind: FrameKind {
        switch self {
        case .pageRequest: .pageRequest
        case .pages: .pages
        case .zeroes: .zeroes
        case .probe: .probe
        case .probeReply: .probeReply
        case .aheadRequest: .aheadRequest
        case .sent: .sent
        case .pagesLZ4: .pagesLZ4
        case .pagesZstd: .pagesZstd
        }
    }
}
