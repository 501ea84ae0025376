package import Compression
package import Identity

/// The first frame of each side on the control connection.
package struct Hello: Hashable, Sendable {
    /// The sender's role in this migration.
    package var role: PeerRole
    /// Whether a source reconnects for a migration that is under way.
    package var rejoins: Bool
    /// How many urgent lanes a destination accepts, up to ``Wire/maxUrgentLanes``; 1 for a source.
    package var urgentLanes: Int
    /// How many bulk lanes the sender uses at most, up to ``Wire/maxBulkLanes``; the smaller of both sides' numbers
    /// holds.
    package var bulkLanes: Int
    /// The parts of the protocol that the sender understands.
    package var capabilities: Capabilities
    /// The migration that this connection belongs to.
    package var migration: MigrationID
    /// The sender's process.
    package var instance: InstanceID
    /// The key with which lanes join: random from the accepting side, zero from the dialer.
    package var nonce: Nonce
    /// The run lease that the sender uses.
    package var lease: LeaseClaim

    /// A HELLO of the version spoken here.
    package init(
        role: PeerRole,
        rejoins: Bool = false,
        urgentLanes: Int = 1,
        bulkLanes: Int = 1,
        capabilities: Capabilities,
        migration: MigrationID,
        instance: InstanceID,
        nonce: Nonce,
        lease: LeaseClaim
    ) {
        self.role = role
        self.rejoins = rejoins
        self.urgentLanes = urgentLanes
        self.bulkLanes = bulkLanes
        self.capabilities = capabilities
        self.migration = migration
        self.instance = instance
        self.nonce = nonce
        self.lease = lease
    }
}

/// The role of a peer in a migration.
package enum PeerRole: UInt8, Hashable, Sendable {
    /// The peer that has the workload and its memory.
    case source = 1
    /// The peer that takes the workload.
    case destination = 2
}

/// The parts of the protocol that a peer understands; bits without a name here are kept and have no meaning.
///
/// There are 56 bits. The byte above them on the wire is the number of bulk lanes, to which former releases give no
/// meaning.
package struct Capabilities: OptionSet, Hashable, Sendable {
    /// The bits that there are.
    static let all: UInt64 = 1 << 56 - 1

    /// The bits as on the wire.
    package let rawValue: UInt64

    /// Capabilities of the given bits.
    package init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// Bit 0, START_RESULT: the peer reports the result of the start.
    ///
    /// Such a peer sends and understands RUNNING, START_FAILED, START_REQUEST, CANCEL, CANCELLED and UNKNOWN. A
    /// destination without the capability counts as running as soon as the source has sent RUN.
    package static let startResult = Capabilities(rawValue: 1 << 0)

    /// Bit 1, STATE_AHEAD: the destination takes DEVICES_AHEAD, and patches of the states that came with it.
    package static let stateAhead = Capabilities(rawValue: 1 << 1)

    /// Bit 2, AHEAD_REQUEST: the source answers AHEAD_REQUEST, with SENT for pages that it has sent before.
    ///
    /// Without the capability the destination prefetches by PAGE_REQUEST, and pages that the push has under way come
    /// twice.
    package static let aheadRequest = Capabilities(rawValue: 1 << 2)

    /// Bit 3, PAUSED: the workload is paused at the source, and the destination keeps it paused until an operator
    /// resumes it.
    ///
    /// A source sets the bit if its workload is paused. A destination sets the bit to say that it understands PAUSED.
    package static let paused = Capabilities(rawValue: 1 << 3)

    /// Bit 4, SNAPSHOT_PROOF: the peer sends or understands SNAPSHOT with a proof of what the snapshot is.
    ///
    /// A snapshot's server and its destinations refuse a peer without the capability: an older release has a SNAPSHOT of
    /// another form, which proves too little.
    package static let snapshotProof = Capabilities(rawValue: 1 << 4)

    /// Bit 5, URGENT_ONLY: a destination of a snapshot's server joins no bulk lane.
    package static let urgentOnly = Capabilities(rawValue: 1 << 5)

    /// Bit 7, INFLATE_LZ4: the destination takes PAGES_LZ4.
    package static let inflateLZ4 = Capabilities(rawValue: 1 << 7)

    /// Bit 8, INFLATE_ZSTD: the destination takes PAGES_ZSTD.
    package static let inflateZstd = Capabilities(rawValue: 1 << 8)

    /// The codecs of the compressed pages that a destination takes.
    package var inflated: Set<Codec> {
        Set(
            Codec.allCases.filter { codec in
                switch codec {
                case .lz4: contains(.inflateLZ4)
                case .zstd: contains(.inflateZstd)
                }
            }
        )
    }
}

extension Hello {
    func write(to writer: inout WireWriter) throws(ProtocolError) {
        writer.append(Wire.magic)
        writer.append(Wire.version)
        writer.append(role.rawValue)
        writer.append(UInt8(rejoins ? 1 : 0) | UInt8(urgentLanes - 1) << 4)
        writer.append(capabilities.rawValue & Capabilities.all | UInt64(bulkLanes - 1) << 56)
        writer.append(migration)
        writer.append(instance)
        writer.append(nonce)
        writer.append(lease.kind)
        switch lease {
        case .absent:
            writer.append(UInt64(0))
            writer.append(UInt16(0))
            writer.append(UInt16(0))
        case .files(let epoch, let store, let workload):
            writer.append(epoch)
            try writer.append(store, field: "lease store", allowed: 1...Wire.maxTextBytes)
            try writer.append(workload, field: "lease workload", allowed: 1...Wire.maxTextBytes)
        }
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
        try reader.readOpening()
        role = try reader.readValue("role")
        let flags: UInt8 = try reader.read("flags")
        try reader.require(UInt64(flags & 0xf), field: "flags", in: 0...1)
        rejoins = flags & 1 == 1
        urgentLanes = Int(flags >> 4) + 1
        let capabilities: UInt64 = try reader.read("capabilities")
        self.capabilities = Capabilities(rawValue: capabilities & Capabilities.all)
        let moreLanes = capabilities >> 56
        try reader.require(moreLanes, field: "bulk lanes beyond the first", in: 0...UInt64(Wire.maxBulkLanes - 1))
        bulkLanes = Int(moreLanes) + 1
        migration = try reader.readIdentifier("migration id")
        instance = try reader.readIdentifier("instance id")
        nonce = try reader.readIdentifier("nonce")
        let kind: UInt8 = try reader.read("lease kind")
        let epoch: UInt64 = try reader.read("lease epoch")
        switch kind {
        case 0:
            try reader.require(epoch, field: "epoch without a lease", in: 0...0)
            _ = try reader.readText("store without a lease", allowed: 0...0)
            _ = try reader.readText("workload without a lease", allowed: 0...0)
            lease = .absent
        case 1:
            let store = try reader.readText("lease store", allowed: 1...Wire.maxTextBytes)
            let workload = try reader.readText("lease workload", allowed: 1...Wire.maxTextBytes)
            lease = .files(epoch: epoch, store: store, workload: workload)
        default:
            throw .unknownValue(frame: .hello, field: "lease kind", found: UInt64(kind))
        }
    }
}
