import ArgumentParser
import Foundation
import Guest
import KVMGuest
import LinuxSystem
import Workloads

/// What kind of workload runs, and how.
struct WorkloadOptions: ParsableArguments {
    @Option(
        help: "What the workload does: sequential, random, zipf, chase or kv; kvm is a guest in a virtual machine."
    )
    var workload = WorkloadKind.pattern(.random)

    @Option(help: ArgumentHelp("Memory of the workload, such as 256MiB or 1GiB.", valueName: "size"))
    var memory = ByteCount(bytes: 256 << 20)

    @Option(
        help: ArgumentHelp("Bytes in a page: 4KiB, or 2MiB for huge pages of the kernel's pool.", valueName: "size")
    )
    var pageSize = ByteCount(bytes: 4096)

    @Option(help: "Regions that the memory is split into.")
    var regions = 1

    @Option(help: "Threads that work.")
    var threads = 1

    @Option(help: "For kvm: vCPUs of the guest.")
    var vcpus = 1

    @Option(name: .customLong("write"), help: ArgumentHelp("Part of the operations that writes.", valueName: "0…1"))
    var writeFraction = 0.2

    @Option(help: ArgumentHelp("Rest between two operations of a thread, such as 10us.", valueName: "time"))
    var thinkTime = TimeSpan(nanoseconds: 0)

    @Option(help: "What all random draws follow from.")
    var seed: UInt64 = 1

    @Option(help: ArgumentHelp("For kv: a file whose lines fill the table.", valueName: "file"))
    var load: String?

    @Option(
        help: ArgumentHelp(
            "One more device; may be repeated. disk:PATH: an image file that is locked where the workload runs. "
                + "hook:PATH: a program, called as PATH start WORKLOAD before the workload comes to run on a host, which it "
                + "can refuse, and as PATH undo WORKLOAD when it has left. For tests: broken:save, broken:load, broken:start, "
                + "slow:load=SECONDS (or save=, start=), reads-memory, large:MIB.",
            valueName: "device"
        ),
        transform: readDevice
    )
    var device: [DeviceSpecification] = []

    @Flag(
        help: ArgumentHelp(
            "Leave the record of each page's version behind, which makes the downtime grow with the memory. A check then "
                + "finds pages that are damaged or another's, but not those that are old or zeros."
        )
    )
    var noLedger = false

    /// The same options as the arguments of another command.
    var arguments: [String] {
        if case .kvm = workload {
            return ["--workload", "\(workload)", "--memory", "\(memory.bytes)", "--vcpus", "\(vcpus)"]
        }
        var arguments = [
            "--workload", "\(workload)", "--memory", "\(memory.bytes)", "--page-size",
            "\(pageSize.bytes)", "--regions", "\(regions)", "--threads", "\(threads)", "--write", "\(writeFraction)",
            "--think-time", "\(thinkTime.nanoseconds)ns",
            "--seed", "\(seed)",
        ]
        if let load { arguments += ["--load", load] }
        if noLedger { arguments.append("--no-ledger") }
        for device in device { arguments += ["--device", device.description] }
        return arguments
    }

    /// The arguments with which a destination lets the workload's hooks run, and its disks be locked.
    var permissions: [String] {
        var arguments: [String] = []
        for device in device {
            switch device {
            case .hook(let path): arguments += ["--allow-hook", path]
            case .disk(let path):
                arguments += ["--allow-disk", URL(fileURLWithPath: path).deletingLastPathComponent().path]
            case .broken, .slow, .readsMemory, .large: break
            }
        }
        return arguments
    }

    func validate() throws {
        do {
            switch workload {
            case .pattern(let pattern):
                // The file of --load is read when the workload is made.
                try configuration(pattern, load: nil).validate()
                if vcpus != 1 { throw ValidationError("--vcpus is for --workload kvm; choose --threads") }
                if load != nil, pattern != .kv { throw ValidationError("--load fills the table of --workload kv only") }
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

    /// An option that was given, and that a guest in a virtual machine has no use for.
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

    /// Makes the workload, its memory filled.
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

    /// The workload as its module knows it.
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
