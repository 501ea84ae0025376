import Identity

extension ControlMessage {
    /// Reads a control frame's payload.
    ///
    /// The returned message is inside every bound of the protocol: its regions do not overlap, and its device states
    /// have at most 1 GiB together.
    ///
    /// - Parameters:
    ///   - kind: from ``ControlFrame/decodeHeader(_:)``.
    ///   - payload: as many bytes as the header announced, no more and no less.
    /// - Throws: the first fault found, by its ``ProtocolError`` case.
    package static func decode(kind: FrameKind, payload: RawSpan) throws(ProtocolError) -> ControlMessage {
        guard kind.isControl else { throw .wrongConnection(frame: kind, control: true) }
        return try WireReader.readAll(kind, payload) { (reader) throws(ProtocolError) in
            try ControlMessage(kind, from: &reader)
        }
    }

    private init(_ kind: FrameKind, from reader: inout WireReader) throws(ProtocolError) {
        switch kind {
        case .hello: self = .hello(try Hello(from: &reader))
        case .refused: self = .refused(reason: try reader.readReason())
        case .regions: self = .regions(guest: try GuestAnnouncement(from: &reader))
        case .ready: self = .ready
        case .listen: self = .listen
        case .devices: self = .devices(try DeviceEntry.readList(from: &reader))
        case .devicesAhead: self = .devicesAhead(try DeviceEntry.readList(from: &reader))
        case .deviceData: self = .deviceData(reader.readRest())
        case .ping: self = .ping(try reader.read("number"))
        case .pong: self = .pong(try reader.read("number"))
        case .devicesFailed:
            let device = try reader.readText("device name", allowed: 0...Wire.maxNameBytes)
            self = .devicesFailed(device: device, reason: try reader.readReason())
        case .run:
            let token = RunToken(try reader.read("token"))
            self = .run(token: token, epoch: try reader.read("epoch"))
        case .running: self = .running(token: RunToken(try reader.read("token")))
        case .startFailed:
            let token = RunToken(try reader.read("token"))
            self = .startFailed(token: token, reason: try reader.readReason())
        case .startRequest: self = .startRequest
        case .cancel: self = .cancel(token: RunToken(try reader.read("token")))
        case .cancelled: self = .cancelled(token: RunToken(try reader.read("token")))
        case .received: self = .received(try ReceivedPages(from: &reader))
        case .complete: self = .complete
        case .completeAck: self = .completeAck
        case .bye: self = .bye
        case .failure: self = .failure(reason: try reader.readReason())
        case .slices: self = .slices(try SnapshotSlice.readList(from: &reader))
        case .snapshot: self = .snapshot(try SnapshotIdentity(from: &reader))
        case .join, .pageRequest, .pages, .zeroes, .probe, .probeReply, .aheadRequest, .sent, .pagesLZ4, .pagesZstd:
            throw .wrongConnection(frame: kind, control: true)
        }
    }
}
