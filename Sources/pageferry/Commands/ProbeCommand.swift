import ArgumentParser
import Foundation
import LinuxSystem
import Telemetry

/// Checks which features and permissions this host has.
struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Check which kernel features and permissions this host has, and print how to fix what is missing.",
        discussion: """
            The command exits with status 1 if something that Pageferry requires is missing.

            Example:

              pageferry probe --json
            """
    )

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var configurationOptions: ConfigurationOptions

    /// One feature or permission, and what was found.
    struct Finding: Encodable {
        let name: String
        let found: String
        /// Whether the feature or permission is there; nil if that is unknown.
        let isThere: Bool?
        let isRequired: Bool
        let mend: String?

        enum CodingKeys: String, CodingKey {
            case name, found, mend
            case isThere = "ok"
            case isRequired = "required"
        }

        /// Encodes an unknown `ok` as null.
        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(name, forKey: .name)
            try container.encode(found, forKey: .found)
            try container.encode(isThere, forKey: .isThere)
            try container.encode(isRequired, forKey: .isRequired)
            try container.encodeIfPresent(mend, forKey: .mend)
        }
    }

    func run() throws {
        let findings = [kernel(), userfaultfd(), device(), sysctl()] + features() + [hugePages(), memory(), kvm()]
        if json {
            Terminal.show(json: try JSONLine.encode(["findings": findings]))
        } else {
            for finding in findings { Terminal.show(lines(finding)) }
        }
        if findings.contains(where: { $0.isRequired && $0.isThere != true }) { throw ExitCode(1) }
    }

    private func lines(_ finding: Finding) -> [Terminal.PaintedLine] {
        let (mark, paint): (String, Terminal.Paint?) =
            switch finding.isThere {
            case true?: ("yes", .green)
            case false?: finding.isRequired ? ("NO ", .red) : ("no ", .yellow)
            case nil: ("?  ", nil)
            }
        let name = finding.name.padding(toLength: 30, withPad: " ", startingAt: 0)
        let line = Terminal.PaintedLine(word: mark, paint: paint, rest: "  \(name)  \(finding.found)")
        let mend = finding.mend.map { Terminal.PaintedLine(word: "", paint: nil, rest: "       → \($0)") }
        return [line] + (mend.map { [$0] } ?? [])
    }

    /// Makes a finding from a file in /proc; if the file cannot be read, the result is unknown.
    private func finding(
        _ name: String,
        in path: String,
        isRequired: Bool = false,
        _ read: (_ text: String) -> (found: String, isThere: Bool?, mend: String?)
    ) -> Finding {
        do throws(SystemError) {
            let text = try ProcessFile.read(path).trimmingCharacters(in: .whitespacesAndNewlines)
            let (found, isThere, mend) = read(text)
            return Finding(name: name, found: found, isThere: isThere, isRequired: isRequired, mend: mend)
        } catch {
            return Finding(name: name, found: "\(error)", isThere: nil, isRequired: isRequired, mend: error.advice)
        }
    }

    private func kernel() -> Finding {
        finding("Linux 6.1 or later", in: "/proc/sys/kernel/osrelease", isRequired: true) { release in
            let numbers = release.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }
            let isNew = numbers.count > 1 && (numbers[0], numbers[1]) >= (6, 1)
            return (release, isNew, isNew ? nil : "run a newer kernel")
        }
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
        finding("vm.unprivileged_userfaultfd", in: "/proc/sys/vm/unprivileged_userfaultfd") { value in
            (value + (value == "0" ? ": needs /dev/userfaultfd or CAP_SYS_PTRACE" : ""), value == "1", nil)
        }
    }

    /// Returns a finding for each userfaultfd feature, with its use; private anonymous memory requires none of them.
    private func features() -> [Finding] {
        let uses: [(Userfaultfd.Features, String)] = [
            (.missingShmem, "memory shared with another process"), (.minorShmem, "placing by UFFDIO_CONTINUE"),
            (.missingHugetlbfs, "huge pages"), (.minorHugetlbfs, "huge pages, placed by UFFDIO_CONTINUE"),
            (.eventRemove, "guests with a balloon"), (.sigbus, "faults answered by the thread that faults"),
            (.threadID, "latency for each thread"), (.move, "placing without a copy"),
            (.poison, "marking lost pages"), (.writeProtectAsync, "write tracking"),
        ]
        func findings(_ isThere: (Userfaultfd.Features) -> Bool?) -> [Finding] {
            uses.map { feature, use in
                Finding(name: "  \(feature)", found: use, isThere: isThere(feature), isRequired: false, mend: nil)
            }
        }
        do throws(SystemError) {
            let kernel = try Userfaultfd.kernelFeatures()
            return findings { kernel.contains($0) }
        } catch {
            // The kernel reports its features only through an open userfaultfd.
            let unasked = Finding(
                name: "userfaultfd features",
                found: "cannot ask: \(error.errno)",
                isThere: nil,
                isRequired: false,
                mend: error.advice
            )
            return [unasked] + findings { _ in nil }
        }
    }

    private func hugePages() -> Finding {
        finding("huge pages", in: "/proc/sys/vm/nr_hugepages") { text in
            let isThere = Int(text).map { $0 > 0 }
            return (
                "\(text) in the pool", isThere,
                isThere == true ? nil : "sysctl vm.nr_hugepages=N, for guests that use them"
            )
        }
    }

    private func memory() -> Finding {
        finding("available memory", in: ProcessFile.memoryPath) { text in
            let bytes = ProcessFile.availableMemory(in: text)
            return (bytes.map { "\($0 >> 20) MiB" } ?? "the kernel does not say", bytes.map { $0 > 0 }, nil)
        }
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
