import Foundation
import LinuxSystem
import Testing

/// A guest in a virtual machine, moved by the command line programs.
@Suite(
    "A guest in a virtual machine",
    .enabled(if: KVM.unavailability == nil, "no virtual machine can run here: see `pageferry probe`")
)
struct VirtualMachineTests {
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
    }

    /// The number of a vCPU's good marks in the guest's output.
    private func marks(_ file: String, of processor: Character) throws -> Int {
        try String(contentsOfFile: file, encoding: .utf8).count { $0 == processor }
    }

    @Test(
        "moves while it runs, and finds its memory right on both sides",
        .timeLimit(.minutes(1)),
        arguments: [["--vcpus", "1"], ["--vcpus", "3", "--no-push"]]
    )
    func demo(options: [String]) throws {
        let serial = workspace.file("serial")
        let finished = try Executable.run(
            Executable.pageferry,
            ["demo", "--workload", "kvm", "--memory", "16MiB", "--serial", serial, "--json"] + options
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.value("runs_on") == "destination")
        #expect(try report.value("workload", "name") == "kvm")
        #expect(try report.number("verify", "pages_checked") == 4096)
        #expect(try report.number("verify", "corrupt") == 0)
        // With the push, every page may have arrived before the guest touches it.
        if options.contains("--no-push") { #expect(try report.number("pages", "demand") > 0) }
        let source = try report.number("workload", "ops_source")
        let destination = try report.number("workload", "ops_destination")
        #expect(source > 0)
        #expect(destination > 0)
        // The last marks may have been written after the report and before the check.
        let written = try ["a", "b", "c"].reduce(0) { try $0 + marks(serial, of: Character($1)) }
        #expect(Double(written) >= source + destination)
        #expect(try marks(serial, of: "!") == 0)
    }

    @Test("moves from one host to another, continues there, and can be stopped and checked", .timeLimit(.minutes(1)))
    func twoHosts() throws {
        let hosts = try TwoHosts()
        let (before, after) = (workspace.file("before"), workspace.file("after"))
        let source = try AgentProcess.source(
            in: workspace,
            on: (hosts, hosts.source),
            "--workload",
            "kvm",
            "--memory",
            "32MiB",
            "--vcpus",
            "2",
            "--serial",
            before
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            on: (hosts, hosts.destination),
            "--listen",
            "\(TwoHosts.destinationAddress):7000",
            "--insecure",
            "--serial",
            after
        )
        defer { destination.end() }
        try waitForMark(in: before)
        let finished = try Executable.migrate(source, destination, "--json")
        #expect(finished.status == 0, "\(finished)")
        #expect(try Printed(finished.output).value("runs_on") == "destination")
        try waitForMark(in: after)
        let check = try Printed(try destination.qmp("stop", "pageferry-verify"))
        #expect(try check.number("return", "pages_checked") == 8192)
        #expect(try check.number("return", "corrupt") == 0)
        #expect(try marks(before, of: "!") + marks(after, of: "!") == 0)
        // After `cont` the guest continues from where it was stopped.
        let stopped = try marks(after, of: "a")
        _ = try destination.qmp("cont")
        let deadline = Date(timeIntervalSinceNow: 20)
        while try marks(after, of: "a") == stopped, Date() < deadline {}
        #expect(try marks(after, of: "a") > stopped)
    }

    private func waitForMark(in file: String) throws {
        let deadline = Date(timeIntervalSinceNow: 20)
        while try marks(file, of: "a") == 0 {
            guard Date() < deadline else { throw TestFailure("the guest has written nothing to \(file)") }
        }
    }

    @Test("stays at its source if the destination was started with --in-thread", .timeLimit(.minutes(1)))
    func refused() throws {
        let source = try AgentProcess.source(in: workspace, "--workload", "kvm", "--memory", "4MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--in-thread")
        defer { destination.end() }
        let finished = try Executable.migrate(source, destination)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains("start without --in-thread"), "\(finished)")
        let check = try Printed(try source.qmp("stop", "pageferry-verify"))
        #expect(try check.number("return", "corrupt") == 0)
    }
}
