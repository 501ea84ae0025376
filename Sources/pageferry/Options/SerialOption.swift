import ArgumentParser
import LinuxSystem
import Logging

/// Where the serial output of a guest in a virtual machine is written.
struct SerialOption: ParsableArguments, Encodable {
    @Option(
        help: ArgumentHelp(
            "Append the serial output of a guest of --workload kvm to this file, such as /dev/stderr. A vCPU writes its "
                + "letter after every 256 correct pages, ! on a wrong page, and a line for each pass over its memory.",
            valueName: "file"
        ),
        completion: .file()
    )
    var serial: String?

    /// Refuses the option for a workload without a serial port.
    func validate(for workload: WorkloadKind) throws {
        if case .pattern = workload, serial != nil { throw ValidationError("--serial is for --workload kvm") }
    }

    func open(_ logger: Logger) throws -> OutputFile? {
        try serial.map { path in
            try OutputFile(path: path) { logger.warning("serial output of the guest is lost: \($0)") }
        }
    }
}
