import Identity

extension ControlMessage {
    /// Returns the frame with its header, ready to be sent.
    ///
    /// A reason is made fit for the wire: control characters become spaces, and a reason of more than 1024 bytes of
    /// UTF-8 is cut off between two characters. Every other field is checked against the bounds that the decoder
    /// applies.
    ///
    /// - Throws: the error with which a receiver would refuse: `outOfBounds`, `controlCharacter`, `duplicateName`, or
    ///   one of the region table or the slices. Messages without names, regions, slices, devices or chunks never throw.
    package func encode() throws(ProtocolError) -> [UInt8] {
        var writer = WireWriter(kind)
        switch self {
        case .hello(let hello):
            try hello.write(to: &writer)
        case .refused(let reason), .failure(let reason):
            writer.append(reason: reason)
        case .regions(let guest):
            try guest.write(to: &writer)
        case .devices(let devices), .devicesAhead(let devices):
            try DeviceEntry.write(devices, to: &writer)
        case .deviceData(let bytes):
            try writer.require(UInt64(bytes.count), field: "chunk length", in: 1...UInt64(Wire.maxDeviceChunkBytes))
            writer.append(bytes)
        case .ping(let number), .pong(let number):
            writer.append(number)
        case .devicesFailed(let device, let reason):
            try writer.append(device, field: "device name", allowed: 0...Wire.maxNameBytes)
            writer.append(reason: reason)
        case .run(let token, let epoch):
            writer.append(token.value)
            writer.append(epoch)
        case .running(let token), .cancel(let token), .cancelled(let token):
            writer.append(token.value)
        case .received(let pages):
            try pages.write(to: &writer)
        case .startFailed(let token, let reason):
            writer.append(token.value)
            writer.append(reason: reason)
        case .slices(let slices):
            try SnapshotSlice.write(slices, to: &writer)
        case .snapshot(let identity):
            identity.write(to: &writer)
        case .ready, .listen, .startRequest, .complete, .completeAck, .bye:
            break
        }
        return writer.finish()
    }
}
