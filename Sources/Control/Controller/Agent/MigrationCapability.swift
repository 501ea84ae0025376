/// QEMU's migration capabilities, and whether each can be chosen here.
enum MigrationCapability: String, CaseIterable {
    case autoConverge = "auto-converge"
    case backgroundSnapshot = "background-snapshot"
    case dirtyBitmaps = "dirty-bitmaps"
    case dirtyLimit = "dirty-limit"
    case events
    case lateBlockActivate = "late-block-activate"
    case mappedRAM = "mapped-ram"
    case multifd
    case pauseBeforeSwitchover = "pause-before-switchover"
    case postcopyBlocktime = "postcopy-blocktime"
    case postcopyPreempt = "postcopy-preempt"
    case postcopyRAM = "postcopy-ram"
    case rdmaPinAll = "rdma-pin-all"
    case releaseRAM = "release-ram"
    case returnPath = "return-path"
    case switchoverAck = "switchover-ack"
    case validateUUID = "validate-uuid"
    case xbzrle
    case xColo = "x-colo"
    case xIgnoreShared = "x-ignore-shared"
    case zeroBlocks = "zero-blocks"
    case zeroCopySend = "zero-copy-send"

    /// The support for a capability.
    enum Standing {
        /// A client can switch the capability on and off.
        ///
        /// Only these are listed by `query-migrate-capabilities`, since clients such as libvirt set every listed
        /// capability, also to false.
        case choice(initially: Bool)
        /// Every migration has the capability, whatever a client sets.
        case always
        /// No migration has the capability, for this reason.
        case never(reason: String)
    }

    /// The support for this capability.
    var standing: Standing {
        switch self {
        case .events: .choice(initially: true)
        case .postcopyRAM: .choice(initially: true)
        case .pauseBeforeSwitchover, .releaseRAM: .choice(initially: false)
        // Postcopy always has a return path, in QEMU too; the value is only stored.
        case .returnPath: .choice(initially: true)
        case .lateBlockActivate, .postcopyBlocktime, .postcopyPreempt: .always
        case .autoConverge, .dirtyLimit, .xbzrle: .never(reason: "no page is sent before the switchover")
        case .switchoverAck: .never(reason: "the switchover begins when it is asked for")
        case .backgroundSnapshot, .mappedRAM: .never(reason: "a migration goes to another agent, never to a file")
        case .dirtyBitmaps, .zeroBlocks: .never(reason: "block devices are not moved")
        case .multifd: .never(reason: "the push has its own connections, as many as multifd-channels says")
        case .zeroCopySend: .never(reason: "the agents choose by themselves how they send")
        case .rdmaPinAll: .never(reason: "pages go over TCP or Unix sockets")
        case .validateUUID: .never(reason: "a workload has no UUID")
        case .xColo: .never(reason: "a workload runs on one host only")
        case .xIgnoreShared: .never(reason: "every page of the workload's memory is sent")
        }
    }
}
