/// The first frame on an urgent or bulk connection, sent by its dialer.
public struct Join: Hashable, Sendable {
    /// What this connection carries.
    public var lane: Lane
    /// Which of the urgent lanes it is, from 0; 0 for the bulk lane.
    public var index: Int
    /// The migration to join.
    public var migration: MigrationID
    /// The nonce from the HELLO of the side that accepts.
    public var nonce: Nonce

    /// A JOIN of the version spoken here.
    public init(lane: Lane, index: Int = 0, migration: MigrationID, nonce: Nonce) {
        self.lane = lane
        self.index = index
        self.migration = migration
        self.nonce = nonce
    }

    /// The frame with its header: 48 bytes.
    public func encode() -> [UInt8] {
        var writer = WireWriter(.join)
        writer.append(Wire.magic)
        writer.append(Wire.version)
        writer.append(lane.rawValue)
        writer.append(UInt8(index))
        writer.append(migration)
        writer.append(nonce)
        return writer.finish()
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
        try reader.readOpening()
        lane = try reader.readValue("lane")
        let index: UInt8 = try reader.read("lane index")
        try reader.require(UInt64(index), field: "lane index", in: lane.indices)
        self.index = Int(index)
        migration = try reader.readIdentifier("migration id")
        nonce = try reader.readIdentifier("nonce")
    }
}

/// A connection that carries pages.
public enum Lane: UInt8, CaseIterable, Hashable, Sendable {
    /// Requests of the destination and the pages that answer them: nothing else waits in it.
    case urgent = 1
    /// Pages that the source pushes.
    case bulk = 2

    fileprivate var indices: ClosedRange<UInt64> {
        switch self {
        case .urgent: 0...UInt64(Wire.maxUrgentLanes - 1)
        case .bulk: 0...0
        }
    }
}
