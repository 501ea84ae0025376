import FirecrackerRig
import Foundation
import LinuxSystem
import Testing

/// The pages of real processes in Chromium, without a window.
///
/// The pictures of the pages are written into the folder that the environment's `PAGEFERRY_SHOTS` names.
@Suite("The live page in a browser", .timeLimit(.minutes(6)))
struct LivePageTests {
    private static let hasBrowser = FileManager.default.isExecutableFile(atPath: "/usr/bin/chromium")

    @Test(
        "shows both sides of a migration in each state, a server, and a handler of five guests",
        .enabled(if: hasBrowser)
    )
    func live() throws {
        let workspace = try Workspace()
        let secret = "a-token-of-the-tests"
        let token = workspace.file("token")
        try Data("\(secret)\n".utf8).write(to: URL(filePath: token))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: token)
        let http = ["--http", "127.0.0.1:0", "--http-control", token]
        // The slow devices let the page show states that usually pass within milliseconds.
        let source = try AgentProcess.source(
            in: workspace,
            http + [
                "--workload", "zipf", "--memory", "256MiB", "--max-bandwidth", "8MiB", "--think-time", "100us",
                "--device", "slow:save=8", "--device", "slow:load=8",
            ]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, http + ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let site = try RestoreSite(serverOf: .standIn, serving: ["--http", "127.0.0.1:0"])
        defer { site.end() }
        let (handler, guests) = try PrometheusTests.startNode(of: site, "--http-control", token)
        for guest in guests { _ = try guest.perform(.workingSet) }
        let pages = [
            ("source", source.running), ("destination", destination.running), ("handler", handler),
            ("server", try #require(site.server)),
        ]
        var options = ["--live", "--token", secret]
        for (name, running) in pages {
            options += ["--\(name)", "http://\(try WatchTests.page(of: running).description.dropFirst("tcp:".count))/"]
        }
        let shots = ProcessInfo.processInfo.environment["PAGEFERRY_SHOTS"] ?? workspace.file("shots")
        let check = try site.python("page_check.py", options + ["--shots", shots])
        _ = try check.line(holding: "watching")
        let migrate = try Executable.pageferry(
            "migrate",
            "--source",
            source.socket,
            "--destination",
            destination.socket,
            "--detach"
        )
        #expect(migrate.status == 0, "\(migrate)")
        let finished = try check.finish(seconds: 300)
        #expect(finished.status == 0, "\(finished.output)\(finished.errors)")
        // Each state of each side, and each page in the end, at two widths and in two themes.
        let pictures = try FileManager.default.contentsOfDirectory(atPath: shots)
        for name in [
            "source-device", "destination-postcopy-active", "destination-postcopy-paused", "source", "destination",
            "handler", "server",
        ] {
            for view in ["1440-light", "1440-dark", "390-light", "390-dark"] {
                #expect(pictures.contains("\(name)-\(view).png"), "\(pictures)")
            }
        }
    }
}
