/// What a frame is: the `kind` field of the header.
///
/// Kinds below 0x40 travel on the control connection, those from 0x40 on the urgent and bulk connections.
package enum FrameKind: UInt16, CaseIterable, Hashable, Sendable {
    /// The first frame of each side on the control connection.
    case hello = 0x01
    /// Refuses the peer's HELLO, REGIONS or SLICES, with the reason; the sender closes after it.
    case refused = 0x02
    /// The guest's kind, configuration and memory regions.
    case regions = 0x03
    /// The destination has room for the regions.
    case ready = 0x04
    /// The destination maps, registers and serves faults from here on.
    case listen = 0x05
    /// Names and sizes of the device states that follow.
    case devices = 0x06
    /// A chunk of the device states.
    case deviceData = 0x07
    /// Asks for a PONG with the same number.
    case ping = 0x08
    /// Answers a PING.
    case pong = 0x09
    /// A device's state did not load.
    case devicesFailed = 0x0a
    /// Grants the start under a fresh token.
    case run = 0x0b
    /// The destination has committed to start under the token.
    case running = 0x0c
    /// A promise that the token never starts, with the reason why the start failed.
    case startFailed = 0x0d
    /// The destination asks for a new RUN.
    case startRequest = 0x0e
    /// The source asks for its workload back.
    case cancel = 0x0f
    /// A promise that the token never starts, made because of a CANCEL.
    case cancelled = 0x10
    /// Tells a source that rejoins which pages of a region the destination has.
    case received = 0x11
    /// The source has sent every page.
    case complete = 0x12
    /// The destination has placed every page.
    case completeAck = 0x13
    /// The sender is done and leaves.
    case bye = 0x14
    /// Why the sender hangs up.
    case failure = 0x15
    /// Where the guest's regions lie in the file that a snapshot's server has.
    case slices = 0x16
    /// The identity of a snapshot; the first one says that the server serves the slices from here on.
    case snapshot = 0x17
    /// Names and sizes of the device states that follow, saved while the workload still runs.
    case devicesAhead = 0x18

    /// The first frame on an urgent or bulk connection, from its dialer.
    case join = 0x40
    /// The destination asks for a run of pages.
    case pageRequest = 0x41
    /// A run of pages and their bytes.
    case pages = 0x42
    /// A run of pages that hold only zeros.
    case zeroes = 0x43
    /// Asks for a PROBE_REPLY.
    case probe = 0x44
    /// Answers a PROBE with 4096 bytes.
    case probeReply = 0x45
    /// The destination asks ahead of a fault for those pages of a run that have not been sent.
    case aheadRequest = 0x46
    /// A run of pages that was asked for ahead and had been sent before.
    case sent = 0x47
    /// A run of pages, compressed together by liblz4.
    case pagesLZ4 = 0x48
    /// A run of pages, compressed together by libzstd.
    case pagesZstd = 0x49

    /// Whether the frame belongs on the control connection; if not, it belongs on the urgent or bulk connection.
    @inlinable
    package var isControl: Bool { rawValue < FrameKind.join.rawValue }

    /// The lengths that the header may announce for this kind, in bytes of payload.
    package var payloadBounds: ClosedRange<UInt32> {
        let reason = UInt32(2 + Wire.maxTextBytes)
        let name = UInt32(2 + Wire.maxNameBytes)
        switch self {
        case .hello, .join:
            return 8...UInt32(Wire.maxOpeningBytes)
        case .refused, .failure:
            return 2...reason
        case .regions:
            let configuration = UInt32(4 + Wire.maxConfigurationBytes)
            return 32...(name + configuration + 2 + UInt32(Wire.maxRegions) * (name + 20))
        case .ready, .listen, .startRequest, .complete, .completeAck, .bye:
            return 0...0
        case .devices, .devicesAhead:
            return 2...(2 + UInt32(Wire.maxDevices) * (name + 8))
        case .deviceData:
            return 1...UInt32(Wire.maxDeviceChunkBytes)
        case .ping, .pong, .running, .cancel, .cancelled:
            return 8...8
        case .received:
            return 13...UInt32(12 + Wire.maxReceivedBytes)
        case .devicesFailed:
            return 4...(name + reason)
        case .run:
            return 16...16
        case .snapshot:
            return 13...UInt32(SnapshotIdentity.maxEncodedBytes)
        case .startFailed:
            return 10...(8 + reason)
        case .slices:
            return 22...(2 + 20 * UInt32(Wire.maxSlices))
        case .pageRequest, .zeroes, .probe, .aheadRequest, .sent:
            return 16...16
        case .probeReply:
            return (16 + Wire.probeReplyBytes)...(16 + Wire.probeReplyBytes)
        case .pages:
            return (16 + Wire.minPageSize)...(16 + Wire.maxPageSize)
        case .pagesLZ4, .pagesZstd:
            // A run that does not shrink goes as PAGES.
            return 17...(15 + Wire.maxCompressedRunBytes)
        }
    }
}

extension FrameKind: CustomStringConvertible {
    /// The frame's name in capitals, as in the wire's description.
    package var description: String {
        switch self {
        case .hello: "HELLO"
        case .refused: "REFUSED"
        case .regions: "REGIONS"
        case .ready: "READY"
        case .listen: "LISTEN"
        case .devices: "DEVICES"
        case .deviceData: "DEVICE_DATA"
        case .ping: "PING"
        case .pong: "PONG"
        case .devicesFailed: "DEVICES_FAILED"
        case .run: "RUN"
        case .running: "RUNNING"
        case .startFailed: "START_FAILED"
        case .startRequest: "START_REQUEST"
        case .cancel: "CANCEL"
        case .cancelled: "CANCELLED"
        case .received: "RECEIVED"
        case .complete: "COMPLETE"
        case .completeAck: "COMPLETE_ACK"
        case .bye: "BYE"
        case .failure: "FAILURE"
        case .slices: "SLICES"
        case .snapshot: "SNAPSHOT"
        case .devicesAhead: "DEVICES_AHEAD"
        case .join: "JOIN"
        case .pageRequest: "PAGE_REQUEST"
        case .pages: "PAGES"
        case .zeroes: "ZEROES"
        case .probe: "PROBE"
        case .probeReply: "PROBE_REPLY"
        case .aheadRequest: "AHEAD_REQUEST"
        case .sent: "SENT"
        case .pagesLZ4: "PAGES_LZ4"
        case .pagesZstd: "PAGES_ZSTD"
        }
    }
}
