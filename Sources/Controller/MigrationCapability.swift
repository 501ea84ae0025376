/// QEMU's migration capabilities: each is part of every migration here, or of none, but for those that can be chosen.
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

    /// Whether every migration here has it; nil where that is chosen.
    var isOn: Bool? {
        switch self {
        case .releaseRAM: nil
        case .events, .lateBlockActivate, .postcopyBlocktime, .postcopyPreempt, .postcopyRAM, .returnPath:
            true
        case .autoConverge, .backgroundSnapshot, .dirtyBitmaps, .dirtyLimit, .mappedRAM, .multifd,
            .pauseBeforeSwitchover, .rdmaPinAll, .switchoverAck, .validateUUID, .xbzrle, .xColo,
            .xIgnoreShared, .zeroBlocks, .zeroCopySend:
            false
        }
    }
}
