import ArgumentParser
import Guest
import KVMGuest
import LinuxSystem
import Workloads

/// The kind of workload, its size, and what it does.
struct WorkloadOptions: ParsableArguments, Encodable {
    @Option(
        help: "The access pattern of a built-in workload, or kvm for a guest in a virtual machine."
    )
    var workload = WorkloadKind.pattern(.random)

    @Option(
        help: ArgumentHelp("The memory of the workload, such as 1GiB (default: 256MiB).", valueName: "size"),
        transform: ByteCount.init
    )
    var memory = ByteCount(bytes: 256 << 20)

    @Option(
        help: ArgumentHelp(
            "The page size: 4KiB, or 2MiB for huge pages from the kernel's pool (default: 4KiB).",
            valueName: "size"
        ),
        transform: readPageSize
    )
    var pageSize = ByteCount(bytes: 4096)

    @Option(help: "The number of regions that the memory is split into.")
    var regions = 1

    @Option(help: "The number of threads that touch memory.")
    var threads = 1

    @Option(help: "For kvm: the number of vCPUs of the guest, 1 to 12.")
    var vcpus = 1

    @Option(name: .customLong("write"), help: ArgumentHelp("The fraction of operations that write.", valueName: "0…1"))
    var writeFraction = 0.2

    @Option(
        help: ArgumentHelp("The pause of a thread after each operation, such as 10us (default: 0).", valueName: "time"),
        transform: readPause
    )
    var thinkTime = TimeSpan(nanoseconds: 0)

    @Option(help: "The seed of all random draws and of the pages' contents.")
    var seed: UInt64 = 1

    @Option(
        help: ArgumentHelp(
            "For kv: a text file whose lines fill the hash table (default: made-up keys).",
            valueName: "file"
        ),
        completion: .file()
    )
    var load: String?

    @Option(
        help: ArgumentHelp(
            "Add a device; may be repeated. disk:PATH: an image file, locked on the host that runs the workload. "
                + "hook:PATH: a program. PATH start WORKLOAD runs before the workload starts on a host, and refuses the "
                + "start by a nonzero exit status. PATH undo WORKLOAD runs after the workload has stopped there. For tests: "
                + "broken:save, broken:load, broken:start, slow:load=SECONDS (or save=, start=), reads-memory, large:MIB.",
            valueName: "device"
        ),
        transform: readDevice
    )
    var device: [DeviceSpecification] = []

    @Flag(
        help: ArgumentHelp(
            "Do not move the ledger, which records the version of every page and makes the downtime grow with the memory. "
                + "A check then finds damaged and swapped pages, but no outdated pages and no pages of zeros."
        )
    )
    var noLedger = false

    func validate() throws {
        do {
            switch workload {
            case .pattern(let pattern):
                try requireBounds()
                // `makeWorkload` reads the file of --load.
                try configuration(pattern, load: nil).validate()
                if vcpus != 1 { throw ValidationError("--vcpus is for --workload kvm; use --threads") }
                if load != nil, pattern != .kv { throw ValidationError("--load is for --workload kv only") }
            case .kvm:
                if let option = try foreignOption() { throw ValidationError("\(option) is not for --workload kvm") }
                try KVMConfiguration(memoryBytes: memory.bytes, processors: vcpus).validate()
            }
        } catch let error as ValidationError {
            throw error
        } catch {
            throw ValidationError("\(error)")
        }
    }

    /// Refuses values that no memory can have, by the names of their options.
    private func requireBounds() throws(ValidationError) {
        guard (1...1024).contains(threads) else { throw ValidationError("--threads must be 1 to 1024") }
        guard (1...64).contains(regions) else { throw ValidationError("--regions must be 1 to 64") }
        guard (0...1).contains(writeFraction) else { throw ValidationError("--write must be 0 to 1, such as 0.2") }
        guard thinkTime.duration <= .seconds(3600) else {
            throw ValidationError("--think-time must be at most 3600s")
        }
    }

    /// Returns the first given option that a guest in a virtual machine does not have, or nil.
    private func foreignOption() throws -> String? {
        let usual = try WorkloadOptions.parse([])
        let given = [
            ("--page-size", pageSize.bytes != usual.pageSize.bytes), ("--regions", regions != usual.regions),
            ("--threads", threads != usual.threads), ("--write", writeFraction != usual.writeFraction),
            ("--think-time", thinkTime.nanoseconds != usual.thinkTime.nanoseconds), ("--seed", seed != usual.seed),
            ("--load", load != nil), ("--device", !device.isEmpty), ("--no-ledger", noLedger),
        ]
        return given.first { $0.1 }?.0
    }

    /// Makes the workload, and fills its memory.
    func makeWorkload(witness: Witness?, serial: OutputFile?) throws -> any Workload {
        switch workload {
        case .pattern(let pattern):
            try BuiltInWorkload(
                new: configuration(pattern, load: load.map { try LineFile(reading: $0) }),
                witness: witness
            )
        case .kvm: try KVMWorkload(newOf: memory.bytes, processors: vcpus, output: serial)
        }
    }

    /// Makes the configuration of a built-in workload.
    private func configuration(_ pattern: AccessPattern, load: LineFile?) -> WorkloadConfiguration {
        WorkloadConfiguration(
            pattern: pattern,
            memoryBytes: memory.bytes,
            regionCount: regions,
            pageSize: pageSize.bytes,
            threads: threads,
            writeFraction: writeFraction,
            thinkTime: thinkTime.nanoseconds,
            seed: seed,
            load: load,
            devices: device,
            hasLedger: !noLedger
        )
    }
}

/// The value of `--workload`.
enum WorkloadKind: ExpressibleByArgument, CodableAsText {
    /// A built-in workload.
    case pattern(AccessPattern)
    /// A guest in a virtual machine.
    case kvm

    init?(argument: String) {
        if argument == "kvm" {
            self = .kvm
        } else {
            guard let pattern = AccessPattern(rawValue: argument) else { return nil }
            self = .pattern(pattern)
        }
    }

    static var allValueStrings: [String] { AccessPattern.allCases.map(\.rawValue) + ["kvm"] }

    var description: String {
        switch self {
        case .pattern(let pattern): pattern.rawValue
        case .kvm: "kvm"
        }
    }

    var defaultValueDescription: String { description }
}
