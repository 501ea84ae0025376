package import Identity

/// The first frame on an urgent or bulk connection, sent by its dialer.
package struct Join: Hashable, Sendable {
    /// What this connection carries.
    package var lane: Lane
    /// The number of the lane among those of its kind, from 0.
    package var index: Int
    /// The migration to join.
    package var migration: MigrationID
    /// The nonce from the HELLO of the side that accepts.
    package var nonce: Nonce

    /// A JOIN of the version spoken here.
    package init(lane: Lane, index: Int = 0, migration: MigrationID, nonce: Nonce) {
        self.lane = lane
        self.index = index
        self.migration = migration
        self.nonce = nonce
    }

    /// The frame with its header: 48 bytes.
    package func encode() -> [UInt8] {
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
package enum Lane: UInt8, CaseIterable, Hashable, Sendable {
    /// The lane of the destination's requests and the pages that answer them; nothing else queues in it.
    case urgent = 1
    /// The lane of the pages that the source pushes.
    case bulk = 2

    fileprivate var indices: ClosedRange<UInt64> {
        switch self {
        case .urgent: 0...UInt64(Wire.maxUrgentLanes - 1)
        case .bulk: 0...UInt64(Wire.maxBulkLanes - 1)
        }
    }
}
