import ArgumentParser
import LinuxSystem

/// Where the serial port of a guest in a virtual machine goes to.
struct SerialOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Append what a guest of --workload kvm writes to its serial port, such as to /dev/stderr: its vCPU's letter for "
                + "256 pages that were right, ! for a wrong one, a line for each pass.",
            valueName: "file"
        )
    )
    var serial: String?

    /// Refuses the option for a workload without a serial port.
    func validate(for workload: WorkloadKind) throws {
        if case .pattern = workload, serial != nil { throw ValidationError("--serial is for --workload kvm") }
    }

    /// The same option as an argument of another command.
    var arguments: [String] { serial.map { ["--serial", $0] } ?? [] }

    func open() throws -> OutputFile? {
        try serial.map { try OutputFile(path: $0) }
    }
}
