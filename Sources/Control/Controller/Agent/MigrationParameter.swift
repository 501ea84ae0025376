import Compression
import PageProtocol
import QMP

/// QEMU's migration parameters, and the values that are accepted here.
enum MigrationParameter: String, CaseIterable {
    case announceInitial = "announce-initial"
    case announceMax = "announce-max"
    case announceRounds = "announce-rounds"
    case announceStep = "announce-step"
    case availSwitchoverBandwidth = "avail-switchover-bandwidth"
    case blockBitmapMapping = "block-bitmap-mapping"
    case cprExecCommand = "cpr-exec-command"
    case cpuThrottleIncrement = "cpu-throttle-increment"
    case cpuThrottleInitial = "cpu-throttle-initial"
    case cpuThrottleTailslow = "cpu-throttle-tailslow"
    case directIO = "direct-io"
    case downtimeLimit = "downtime-limit"
    case maxBandwidth = "max-bandwidth"
    case maxCPUThrottle = "max-cpu-throttle"
    case maxPostcopyBandwidth = "max-postcopy-bandwidth"
    case mode
    case multifdChannels = "multifd-channels"
    case multifdCompression = "multifd-compression"
    case multifdQatzipLevel = "multifd-qatzip-level"
    case multifdZlibLevel = "multifd-zlib-level"
    case multifdZstdLevel = "multifd-zstd-level"
    case throttleTriggerThreshold = "throttle-trigger-threshold"
    case tlsAuthz = "tls-authz"
    case tlsCreds = "tls-creds"
    case tlsHostname = "tls-hostname"
    case vcpuDirtyLimit = "vcpu-dirty-limit"
    case xCheckpointDelay = "x-checkpoint-delay"
    case xVCPUDirtyLimitPeriod = "x-vcpu-dirty-limit-period"
    case xbzrleCacheSize = "xbzrle-cache-size"
    case zeroPageDetection = "zero-page-detection"

    /// The form of the accepted values.
    enum Form {
        /// Every integer of a range.
        case integer(ClosedRange<Int>, initially: Int, unit: String? = nil)
        /// Every power of two that is not below a bound.
        case powerOfTwo(from: Int, initially: Int)
        case boolean(initially: Bool)
        /// One of these words.
        case word([String], initially: String)
        /// Only values that request nothing; any other value would need a feature that no migration has.
        ///
        /// - `shown`: the value that `query-migrate-parameters` answers; nil if the parameter is left out.
        /// - `reason`: why another value is refused, and what to do.
        case fixed([JSONValue], shown: JSONValue? = nil, reason: String)
    }

    /// The accepted values of this parameter.
    ///
    /// A parameter that tunes a feature of no migration accepts QEMU's values, and they have no effect.
    var form: Form {
        switch self {
        // Bounds the push; 0 sets no bound.
        case .maxPostcopyBandwidth: .integer(0...Int.max, initially: 0, unit: "bytes/second")
        // The connections of the push, in migrations that begin later; 0, which QEMU lacks, chooses by the link.
        case .multifdChannels: .integer(0...Wire.maxBulkLanes, initially: 0)
        // Compresses the pages that later migrations push. QEMU knows only none and zstd of these words.
        case .multifdCompression: .word(PushCompression.allCases.map(\.rawValue), initially: "none")

        // Precopy only: bounds the bytes that are sent before the switchover, of which there are none.
        case .maxBandwidth: .integer(0...Int.max, initially: 128 << 20, unit: "bytes/second")
        case .availSwitchoverBandwidth: .integer(0...Int.max, initially: 0, unit: "bytes/second")
        // Precopy only: decides when the switchover begins by itself. In postcopy a command begins the switchover, in
        // QEMU too, so this value does not limit the downtime.
        case .downtimeLimit: .integer(0...2_000_000, initially: 300, unit: "milliseconds")

        // Each tunes a capability that no migration has.
        case .cpuThrottleIncrement: .integer(1...99, initially: 10)
        case .cpuThrottleInitial: .integer(1...99, initially: 20)
        case .cpuThrottleTailslow: .boolean(initially: false)
        case .maxCPUThrottle: .integer(1...99, initially: 99)
        case .throttleTriggerThreshold: .integer(1...100, initially: 50)
        case .vcpuDirtyLimit: .integer(1...Int.max, initially: 1)
        case .xVCPUDirtyLimitPeriod: .integer(1...1000, initially: 1000)
        case .multifdQatzipLevel: .integer(1...9, initially: 1)
        case .multifdZlibLevel: .integer(0...9, initially: 1)
        case .multifdZstdLevel: .integer(0...20, initially: 1)
        case .xbzrleCacheSize: .powerOfTwo(from: 4096, initially: 64 << 20)
        case .xCheckpointDelay: .integer(0...Int(UInt32.max), initially: 20_000)
        case .directIO: .boolean(initially: false)

        case .tlsAuthz, .tlsCreds, .tlsHostname:
            .fixed(["", nil], reason: "nothing is encrypted; leave it empty, and use a tunnel between the hosts")
        case .mode:
            .fixed(["normal"], shown: "normal", reason: "a workload moves to another agent; leave it 'normal'")
        case .zeroPageDetection:
            .fixed(
                ["multifd", "legacy"],
                shown: "multifd",
                reason: "pages of zeros are always found; leave it 'multifd'"
            )
        case .blockBitmapMapping: .fixed([[]], reason: "block devices are not moved; leave it out")
        case .cprExecCommand: .fixed([[]], reason: "an agent does not execute another; leave it out")
        case .announceInitial: .fixed([50], reason: MigrationParameter.noAnnouncement)
        case .announceMax: .fixed([550], reason: MigrationParameter.noAnnouncement)
        case .announceRounds: .fixed([5], reason: MigrationParameter.noAnnouncement)
        case .announceStep: .fixed([100], reason: MigrationParameter.noAnnouncement)
        }
    }

    private static let noAnnouncement =
        "an agent does not announce the workload's network cards; leave it out, and announce them by a start hook"

    /// The answer of `query-migrate-parameters` until the parameter is set; nil if the parameter is left out.
    var initial: JSONValue? {
        switch form {
        case .integer(_, let initially, _), .powerOfTwo(_, let initially): JSONValue(initially)
        case .boolean(let initially): .boolean(initially)
        case .word(_, let initially): .string(initially)
        case .fixed(_, let shown, _): shown
        }
    }

    /// The type of the parameter's values, for clients.
    var type: QMPType {
        switch form {
        case .integer, .powerOfTwo: .integer
        case .boolean: .boolean
        case .word(let words, _): .words(words)
        case .fixed(let values, _, _):
            switch values.first {
            case .integer: .integer
            case .array: .array(.any)
            case .string where values.contains(nil): .either([.string, .null])
            default: .words(values.compactMap(\.string))
            }
        }
    }

    /// Checks the parameter's value in a command.
    ///
    /// - Parameter command: the command, which has an argument of the parameter's name.
    /// - Returns: the answer of `query-migrate-parameters` from now on.
    /// - Throws: `QMPError` if the value is not accepted.
    func take(from command: QMPCommand) throws(QMPError) -> JSONValue? {
        switch form {
        case .integer(let range, _, let unit):
            let value = try command.integer(rawValue)
            guard range.contains(Int(value)) else {
                let bounds = "\(range.lowerBound) to \(range.upperBound)"
                throw expects("an integer in the range of \(bounds)\(unit.map { " \($0)" } ?? "")")
            }
            return .integer(value)
        case .powerOfTwo(let least, _):
            let value = try command.integer(rawValue)
            guard value >= least, value & (value - 1) == 0 else {
                throw expects("a power of two that is no less than \(least)")
            }
            return .integer(value)
        case .boolean: return .boolean(try command.boolean(rawValue))
        case .word(let words, _):
            let value = try command.string(rawValue)
            guard words.contains(value) else {
                throw .generic("Parameter '\(rawValue)' does not accept value '\(value)'")
            }
            return .string(value)
        case .fixed(let values, let shown, let reason):
            guard let value = command.arguments[rawValue], values.contains(value) else {
                throw .generic("Parameter '\(rawValue)' is not supported: \(reason)")
            }
            return shown
        }
    }

    private func expects(_ what: String) -> QMPError { .generic("Parameter '\(rawValue)' expects \(what)") }
}
