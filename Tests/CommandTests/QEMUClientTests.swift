import Foundation
import Testing

/// Agents that are controlled by QEMU's own client, the PyPI package `qemu.qmp`.
@Suite("QEMU's client")
struct QEMUClientTests {
    @Test(
        "gets the answers and events that it expects",
        .enabled(if: QEMUClient.python != nil, "the package qemu.qmp cannot be had: no network, or no python3-venv"),
        .timeLimit(.minutes(2)),
        arguments: [
            ("completes", []), ("fails", ["--device", "broken:load"]), ("cancels", ["--device", "slow:start=5"]),
            ("recovers", ["--write", "0"]),
        ]
    )
    func drives(scenario: String, options: [String]) throws {
        try run("qmp_client.py", scenario: scenario, options: options)
    }

    @Test(
        "gets the answers that a virtual machine manager needs, in the order of its commands",
        .enabled(if: QEMUClient.python != nil, "the package qemu.qmp cannot be had: no network, or no python3-venv"),
        .timeLimit(.minutes(2)),
        arguments: ["moves", "cancels", "paused"]
    )
    func manages(scenario: String) throws {
        try run("qmp_manager.py", scenario: scenario, options: [])
    }

    private func run(_ script: String, scenario: String, options: [String]) throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, options: ["--memory", "16MiB", "--threads", "1"] + options)
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        let finished = try Executable.run(
            try #require(QEMUClient.python),
            [Workspace.fixture(script), scenario, source.socket, destination.socket],
            seconds: 90
        )
        #expect(finished.status == 0, "\(finished)")
    }
}

/// A Python environment with the package, kept from run to run.
private enum QEMUClient {
    /// The interpreter; nil if the package cannot be installed.
    static let python: String? = {
        let folder = FileManager.default.homeDirectoryForCurrentUser.path + "/.cache/pageferry-tests/qemu-qmp"
        let python = "\(folder)/bin/python"
        if hasPackage(python) { return python }
        _ = try? Executable.run("/usr/bin/env", ["python3", "-m", "venv", folder])
        _ = try? Executable.run(python, ["-m", "pip", "install", "--quiet", "qemu.qmp"])
        return hasPackage(python) ? python : nil
    }()

    private static func hasPackage(_ python: String) -> Bool {
        FileManager.default.isExecutableFile(atPath: python)
            && (try? Executable.run(python, ["-c", "import qemu.qmp"]))?.status == 0
    }
}
