/// Those of QEMU's migration parameters that a migration here can keep.
enum MigrationParameter: String, CaseIterable {
    /// Bounds what is sent before the switchover, in bytes a second: nothing is, so that any bound is kept.
    case maxBandwidth = "max-bandwidth"
    /// Says how little must be left before the switchover, in milliseconds: it happens when it is asked for.
    case downtimeLimit = "downtime-limit"
    /// Bounds the push, in bytes of pages a second; 0 is as many as the network takes.
    case maxPostcopyBandwidth = "max-postcopy-bandwidth"

    /// What it is until it is set, as in QEMU.
    var initial: Int {
        switch self {
        case .maxBandwidth: 128 << 20
        case .downtimeLimit: 300
        case .maxPostcopyBandwidth: 0
        }
    }

    /// What it may be.
    var range: ClosedRange<Int> {
        switch self {
        case .maxBandwidth, .maxPostcopyBandwidth: 0...Int.max
        case .downtimeLimit: 0...2_000_000
        }
    }

    var unit: String {
        switch self {
        case .maxBandwidth, .maxPostcopyBandwidth: "bytes/second"
        case .downtimeLimit: "milliseconds"
        }
    }
}
