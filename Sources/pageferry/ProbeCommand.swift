import ArgumentParser
import Foundation
import LinuxSystem

/// Says what this host can do.
struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Say which kernel features and permissions are there, and how to mend what is missing.",
        discussion: """
            Ends with status 1 if something that Pageferry cannot do without is missing. Example:

              pageferry probe --json
            """
    )

    @Flag(help: "Print one JSON object.")
    var json = false

    /// One thing that was looked at.
    struct Finding: Encodable {
        let name: String
        let found: String
        let isThere: Bool
        let isRequired: Bool
        let mend: String?

        enum CodingKeys: String, CodingKey {
            case name, found, mend
            case isThere = "ok"
            case isRequired = "required"
        }
    }

    func run() throws {
        let findings = [kernel(), userfaultfd(), device(), sysctl()] + features() + [hugePages(), memory(), kvm()]
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            Terminal.show(json: String(decoding: try encoder.encode(["findings": findings]), as: UTF8.self))
        } else {
            for finding in findings { Terminal.show(lines(finding)) }
        }
        if findings.contains(where: { $0.isRequired && !$0.isThere }) { throw ExitCode(1) }
    }

    private func lines(_ finding: Finding) -> [String] {
        let mark = finding.isThere ? "yes" : finding.isRequired ? "NO " : "no "
        let name = finding.name.padding(toLength: 30, withPad: " ", startingAt: 0)
        return ["\(mark)  \(name)  \(finding.found)"] + (finding.mend.map { ["       → \($0)"] } ?? [])
    }

    private func kernel() -> Finding {
        let release =
            ProcessFile.text("/proc/sys/kernel/osrelease")?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "?"
        let numbers = release.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }
        let isNew = numbers.count > 1 && (numbers[0], numbers[1]) >= (6, 1)
        return Finding(
            name: "Linux 6.1 or later",
            found: release,
            isThere: isNew,
            isRequired: true,
            mend: isNew ? nil : "run a newer kernel"
        )
    }

    private func userfaultfd() -> Finding {
        do throws(SystemError) {
            _ = try Userfaultfd()
            return Finding(name: "userfaultfd", found: "opens", isThere: true, isRequired: true, mend: nil)
        } catch {
            return Finding(
                name: "userfaultfd",
                found: "\(error.errno)",
                isThere: false,
                isRequired: true,
                mend: error.advice
            )
        }
    }

    private func device() -> Finding {
        let isThere = access("/dev/userfaultfd", R_OK | W_OK) == 0
        return Finding(
            name: "/dev/userfaultfd",
            found: isThere ? "can be opened" : String(cString: strerror(errno)),
            isThere: isThere,
            isRequired: false,
            mend: isThere ? nil : "setfacl -m u:$USER:rw /dev/userfaultfd"
        )
    }

    private func sysctl() -> Finding {
        let value = ProcessFile.text("/proc/sys/vm/unprivileged_userfaultfd")?.first ?? "?"
        return Finding(
            name: "vm.unprivileged_userfaultfd",
            found: "\(value)" + (value == "0" ? ": needs /dev/userfaultfd or CAP_SYS_PTRACE" : ""),
            isThere: value == "1",
            isRequired: false,
            mend: nil
        )
    }

    /// What each feature is for; none is required for private anonymous memory.
    private func features() -> [Finding] {
        let uses: [(Userfaultfd.Features, String)] = [
            (.missingShmem, "memory shared with another process"), (.minorShmem, "placing by UFFDIO_CONTINUE"),
            (.missingHugetlbfs, "huge pages"), (.minorHugetlbfs, "huge pages, placed by UFFDIO_CONTINUE"),
            (.eventRemove, "guests with a balloon"), (.sigbus, "faults answered by the thread that faults"),
            (.threadID, "latency for each thread"), (.move, "placing without a copy"),
            (.poison, "marking lost pages"), (.writeProtectAsync, "write tracking"),
        ]
        let kernel = (try? Userfaultfd.kernelFeatures()) ?? []
        return uses.map { feature, use in
            Finding(
                name: "  \(feature)",
                found: use,
                isThere: kernel.contains(feature),
                isRequired: false,
                mend: nil
            )
        }
    }

    private func hugePages() -> Finding {
        let count = ProcessFile.text("/proc/sys/vm/nr_hugepages").flatMap { Int($0.dropLast()) } ?? 0
        return Finding(
            name: "huge pages",
            found: "\(count) in the pool",
            isThere: count > 0,
            isRequired: false,
            mend: count > 0 ? nil : "sysctl vm.nr_hugepages=N, for guests that use them"
        )
    }

    private func memory() -> Finding {
        let bytes = ProcessFile.availableMemory ?? 0
        return Finding(
            name: "available memory",
            found: "\(bytes >> 20) MiB",
            isThere: bytes > 0,
            isRequired: false,
            mend: nil
        )
    }

    private func kvm() -> Finding {
        do throws(SystemError) {
            let kvm = try KVM()
            let chip = kvm.hasInterruptChip ? "an interrupt chip" : "no interrupt chip"
            return Finding(
                name: "/dev/kvm",
                found: "can be opened: up to \(kvm.maxProcessors) vCPUs, \(chip)",
                isThere: true,
                isRequired: false,
                mend: nil
            )
        } catch {
            return Finding(
                name: "/dev/kvm",
                found: "\(error.errno), for --workload kvm",
                isThere: false,
                isRequired: false,
                mend: error.advice
            )
        }
    }
}
