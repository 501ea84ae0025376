import FirecrackerRig
import Foundation
import Testing

/// What a service manager hears, and what it reads in the units of the package.
@Suite("A service of systemd", .timeLimit(.minutes(2)))
struct ServiceTests {
    /// A command under a service manager.
    private struct Managed {
        let manager: Running

        init(watchdog: String = "-", _ arguments: [String]) throws {
            let program = Workspace.fixture("notified.py")
            manager = try Running("/usr/bin/python3", ["-B", program, watchdog, Executable.pageferry] + arguments)
        }

        func process() throws -> Int32 {
            try #require(Int32(try manager.line(holding: "started ").dropFirst("started ".count)))
        }

        func hears(_ words: String) throws { _ = try manager.line(holding: "told \(words)") }

        func count(_ words: String) -> Int { manager.outputText.components(separatedBy: "told \(words)").count - 1 }
    }

    private func commands(in workspace: Workspace) throws -> [[String]] {
        let snapshot = workspace.file("vm.mem")
        try Data(repeating: 1, count: 1 << 20).write(to: URL(fileURLWithPath: snapshot))
        return [
            ["serve", "--snapshot", snapshot, "--listen", "unix:\(workspace.file("s.sock"))"],
            [
                "attach", "--socket", workspace.file("u.sock"), "--from", "unix:\(workspace.file("s.sock"))", "--state",
                workspace.file("state"),
            ],
            ["destination", "--qmp", workspace.file("b.sock")],
            ["source", "--qmp", workspace.file("a.sock"), "--memory", "4MiB"],
        ]
    }

    @Test("hears when a command is ready, reloads, and ends")
    func notified() throws {
        let workspace = try Workspace()
        for command in try commands(in: workspace) {
            let managed = try Managed(command)
            defer { managed.manager.end() }
            try managed.hears("READY=1")
            _ = try managed.manager.line(holding: "told STATUS=")
            let process = try managed.process()
            kill(process, SIGHUP)
            try managed.hears("RELOADING=1")
            let told = try managed.manager.output(holding: "the end of the reload") {
                $0.components(separatedBy: "told READY=1").count == 3
            }
            // Microseconds of the monotonic clock.
            #expect(told.contains(/told MONOTONIC_USEC=[0-9]{6,}\n/))
            kill(process, SIGTERM)
            try managed.hears("STOPPING=1")
            _ = try managed.manager.line(holding: "ended 0")
            #expect(managed.count("WATCHDOG=1") == 0)
        }
    }

    @Test("hears that a command is ready although its queue was full")
    func busy() throws {
        let workspace = try Workspace()
        for command in try commands(in: workspace).prefix(2) {
            let managed = try Managed(watchdog: "busy", command)
            defer { managed.manager.end() }
            try managed.hears("READY=1")
        }
    }

    @Test("hears of no reload once a command is stopping")
    func stopping() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let socket = site.workspace.file("u.sock")
        let options = ["--socket", socket, "--state", site.workspace.file("state")]
        let managed = try Managed(site.arguments(options))
        defer { managed.manager.end() }
        try managed.hears("READY=1")
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.workingSet) == 1)
        let process = try managed.process()
        kill(process, SIGTERM)
        try managed.hears("STOPPING=1")
        kill(process, SIGHUP)
        _ = try managed.manager.errorLine(holding: "SIGHUP: ")
        guest.end()
        _ = try managed.manager.line(holding: "ended 0")
        #expect(managed.count("READY=1") == 1 && managed.count("RELOADING=1") == 0, "\(managed.manager.outputText)")
    }

    @Test("hears at intervals that a command works, and no longer when it hangs")
    func watchdog() throws {
        let workspace = try Workspace()
        for command in try commands(in: workspace) {
            let managed = try Managed(watchdog: "300000", command)
            defer { managed.manager.end() }
            _ = try managed.manager.output(holding: "four signs of life") {
                $0.components(separatedBy: "told WATCHDOG=1").count > 4
            }
            let process = try managed.process()
            kill(process, SIGSTOP)
            defer { kill(process, SIGKILL) }
            usleep(200_000)
            let before = managed.count("WATCHDOG=1")
            usleep(400_000)
            #expect(managed.count("WATCHDOG=1") == before)
        }
    }

    /// Where the units lie.
    private static let units = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../Packaging/systemd").standardized.path

    @Test(
        "has units that systemd understands",
        .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/systemd-analyze"), "there is no systemd")
    )
    func units() throws {
        let folder = try Workspace()
        var units: [String] = []
        for unit in try FileManager.default.contentsOfDirectory(atPath: ServiceTests.units).sorted() {
            let text = try String(contentsOfFile: "\(ServiceTests.units)/\(unit)", encoding: .utf8)
            // The program that the package installs is not on this host.
            try text.replacing("/usr/bin/pageferry ", with: "\(Executable.pageferry) ")
                .write(toFile: folder.file(unit), atomically: false, encoding: .utf8)
            units.append(folder.file(unit.replacing("@.", with: "@a.")))
            if unit.contains("@.") {
                try FileManager.default.createSymbolicLink(
                    atPath: folder.file(unit.replacing("@.", with: "@a.")),
                    withDestinationPath: unit
                )
            }
        }
        #expect(units.count == 4)
        let verified = try Executable.run(
            "/usr/bin/env",
            ["SYSTEMD_LOG_LEVEL=warning", "/usr/bin/systemd-analyze", "verify", "--man=no"] + units
        )
        // Warnings about other units of this host do not count.
        let own = verified.errors.split(separator: "\n").filter { $0.contains("pageferry") }
        #expect(own.isEmpty, "\(verified)")
        for unit in units where unit.hasSuffix(".service") {
            let analyzed = try Executable.run(
                "/usr/bin/systemd-analyze",
                ["security", "--offline=true", "--threshold=40", unit]
            )
            #expect(analyzed.status == 0, "\(analyzed)")
        }
    }
}
