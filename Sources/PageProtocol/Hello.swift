/// The first frame of each side on the control connection.
public struct Hello: Hashable, Sendable {
    /// What the sender is in this migration.
    public var role: PeerRole
    /// Whether a source comes again, over a new connection, for a migration that is under way.
    public var rejoins: Bool
    /// How many urgent lanes a destination takes, up to ``Wire/maxUrgentLanes``; of a source, 1.
    public var urgentLanes: Int
    /// What the sender understands.
    public var capabilities: Capabilities
    /// The migration that this connection belongs to.
    public var migration: MigrationID
    /// The sender's process.
    public var instance: InstanceID
    /// The key with which lanes join: random from the accepting side, zero from the dialer.
    public var nonce: Nonce
    /// The run lease that the sender uses.
    public var lease: LeaseClaim

    /// A HELLO of the version spoken here.
    public init(
        role: PeerRole,
        rejoins: Bool = false,
        urgentLanes: Int = 1,
        capabilities: Capabilities,
        migration: MigrationID,
        instance: InstanceID,
        nonce: Nonce,
        lease: LeaseClaim
    ) {
        self.role = role
        self.rejoins = rejoins
        self.urgentLanes = urgentLanes
        self.capabilities = capabilities
        self.migration = migration
        self.instance = instance
        self.nonce = nonce
        self.lease = lease
    }
}

/// What a peer is in a migration.
public enum PeerRole: UInt8, Hashable, Sendable {
    /// It has the workload and its memory.
    case source = 1
    /// It takes the workload.
    case destination = 2
}

/// What a peer understands; bits that are not named here are kept and mean nothing.
public struct Capabilities: OptionSet, Hashable, Sendable {
    /// The bits as on the wire.
    public let rawValue: UInt64

    /// Capabilities of the given bits.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// Bit 0, START_RESULT: the peer speaks of the start's result.
    ///
    /// It sends and understands RUNNING, START_FAILED, START_REQUEST, CANCEL, CANCELLED and UNKNOWN. A destination without it is taken to run as soon as RUN is sent to it.
    public static let startResult = Capabilities(rawValue: 1 << 0)
}

extension Hello {
    func write(to writer: inout WireWriter) throws(ProtocolError) {
        writer.append(Wire.magic)
        writer.append(Wire.version)
        writer.append(role.rawValue)
        writer.append(UInt8(rejoins ? 1 : 0) | UInt8(urgentLanes - 1) << 4)
        writer.append(capabilities.rawValue)
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
        capabilities = Capabilities(rawValue: try reader.read("capabilities"))
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
