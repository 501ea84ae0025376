import Identity
import PageProtocol

/// Values that the tests share: at least one of every control message, at its bounds if it has any.
enum Samples {
    static let migration = MigrationID(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)
    static let instance = InstanceID(0xa0a1_a2a3_a4a5_a6a7_a8a9_aaab_acad_aeaf)
    static let nonce = Nonce(0xb0b1_b2b3_b4b5_b6b7_b8b9_babb_bcbd_bebf)

    static let hello = Hello(
        role: .destination,
        bulkLanes: 4,
        capabilities: .startResult,
        migration: migration,
        instance: instance,
        nonce: nonce,
        lease: .files(epoch: 3, store: "/srv/leases", workload: "vm-7")
    )

    static let dialersHello = Hello(
        role: .source,
        capabilities: Capabilities(rawValue: .max >> 8),
        migration: migration,
        instance: instance,
        nonce: .zero,
        lease: .absent
    )

    static let manyLanes = Hello(
        role: .destination,
        rejoins: true,
        urgentLanes: 16,
        bulkLanes: 64,
        capabilities: .startResult,
        migration: migration,
        instance: instance,
        nonce: nonce,
        lease: .absent
    )

    static let ram = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 32768)
    static let high = RegionShape(name: "high", guestAddress: 1 << 32, pageSize: 2 << 20, pageCount: 3)

    static let guest = GuestAnnouncement(kind: "demo", configuration: [1, 2, 3], regions: [ram, high])

    static let largestGuest = GuestAnnouncement(
        kind: name(64),
        configuration: [UInt8](repeating: 0xc5, count: 64 << 10),
        regions: (0..<64).map {
            RegionShape(
                name: name(62) + String($0 + 10),
                guestAddress: UInt64($0) << 40,
                pageSize: 1 << 30,
                pageCount: 1 << 10
            )
        }
    )

    static let slices = [
        SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 32768),
        SnapshotSlice(offset: 128 << 20, pageSize: 2 << 20, pageCount: 3),
    ]

    static let times = FileProof.Times(modified: 1_000_000_000_000_000_000, changed: 1_000_000_000_000_000_001)

    static let identity = SnapshotIdentity(
        byteCount: 134 << 20,
        proof: .file(FileProof(device: 0x103, inode: 4711, times: [times], spread: digest(0x20), full: nil))
    )

    static let fullIdentity = SnapshotIdentity(
        byteCount: .max,
        proof: .file(
            FileProof(
                device: .max,
                inode: .max,
                times: (0..<8).map { FileProof.Times(modified: .min + $0, changed: .max - $0) },
                spread: digest(0x20),
                full: digest(0xe0)
            )
        )
    )

    /// An identity with a proof of a later release.
    static func laterIdentity(kind: UInt16 = 2, byteCount: Int = 240) -> SnapshotIdentity {
        let value = (0..<byteCount).map { UInt8($0) }
        return SnapshotIdentity(byteCount: 4096, proof: .unknown(kind: kind, value: value))
    }

    /// A digest of bytes that count up from the first one.
    static func digest(_ first: UInt8) -> ContentDigest {
        ContentDigest((0..<32).map { first + $0 }) ?? { preconditionFailure("a digest has 32 bytes") }()
    }

    static let messages: [ControlMessage] = [
        .hello(hello),
        .hello(dialersHello),
        .hello(manyLanes),
        .refused(reason: "64 MiB free, the guest has 128 MiB"),
        .regions(guest: guest),
        .regions(guest: largestGuest),
        .ready,
        .listen,
        .devices([]),
        .devices([DeviceEntry(name: "cpu0", byteCount: 1 << 30), DeviceEntry(name: "clock", byteCount: 0)]),
        .deviceData([7]),
        .deviceData([UInt8](repeating: 0x5a, count: 1 << 20)),
        .ping(7),
        .pong(.max),
        .devicesFailed(device: "cpu0", reason: "section is newer"),
        .devicesFailed(device: "", reason: ""),
        .run(token: 0x0102_0304_0506_0708, epoch: 3),
        .running(token: 1),
        .startFailed(token: 2, reason: "disk lock held by host-b; grüße"),
        .startRequest,
        .cancel(token: 3),
        .cancelled(token: 4),
        .received(ReceivedPages(region: 1, first: 8, bits: [0x81, 0])),
        .complete,
        .completeAck,
        .bye,
        .failure(reason: name(1024)),
        .slices(slices),
        .snapshot(identity),
        .snapshot(fullIdentity),
        .snapshot(laterIdentity()),
        .snapshot(laterIdentity(kind: .max, byteCount: 1)),
        .devicesAhead([DeviceEntry(name: "ledger", byteCount: 3)]),
    ]

    /// The messages that are small enough for a test to flip every bit.
    static let small = messages.filter { message in
        if case .deviceData(let chunk) = message { return chunk.count == 1 }
        return message != .regions(guest: largestGuest) && message != .failure(reason: name(1024))
    }

    static func name(_ byteCount: Int) -> String { String(repeating: "n", count: byteCount) }
}

/// Decodes a whole control frame as a driver does: first the header, then as many bytes as the header announces.
func decodeControl(_ frame: [UInt8]) throws(ProtocolError) -> ControlMessage {
    let (kind, length) = try decodeControlHeader(Array(frame.prefix(8)))
    precondition(length == frame.count - 8, "the sample's header disagrees with its payload")
    return try decodeControl(kind, Array(frame.dropFirst(8)))
}

func decodeControlHeader(_ header: [UInt8]) throws(ProtocolError) -> (kind: FrameKind, length: Int) {
    try ControlFrame.decodeHeader(header.span.bytes)
}

func decodeControl(_ kind: FrameKind, _ payload: [UInt8]) throws(ProtocolError) -> ControlMessage {
    try ControlMessage.decode(kind: kind, payload: payload.span.bytes)
}

func decodeOpening(_ kind: FrameKind, _ payload: [UInt8]) throws(ProtocolError) -> OpeningFrame {
    try OpeningFrame.decode(kind: kind, payload: payload.span.bytes)
}

func decodeLane(_ bytes: [UInt8]) throws(ProtocolError) -> LaneFrame {
    try LaneFrame.decode(bytes.span.bytes)
}

/// The 24 bytes of a lane frame.
func encoded(_ frame: LaneFrame) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: LaneFrame.encodedByteCount) { buffer, count in
        if let base = UnsafeMutableRawBufferPointer(buffer).baseAddress { frame.encode(into: base) }
        count = LaneFrame.encodedByteCount
    }
}

/// A header with any fields.
func header(length: UInt32, kind: UInt16, reserved: UInt16 = 0) -> [UInt8] {
    bytes(length) + bytes(kind) + bytes(reserved)
}

/// A number's bytes, little-endian.
func bytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    (0..<Number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
}

/// A text with its u16 length.
func text(_ string: String) -> [UInt8] { bytes(UInt16(string.utf8.count)) + string.utf8 }

/// A generator whose sequence is the same on every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            withUnsafeBytes(of: next()) { bytes.append(contentsOf: $0) }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }
}
