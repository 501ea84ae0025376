import FirecrackerRig
import Foundation
import HTTPClient
import LinuxSystem
import Testing

/// A real Prometheus that watches processes of Pageferry.
@Suite("Prometheus", .timeLimit(.minutes(5)))
struct PrometheusTests {
    /// The folder of Prometheus's programs.
    private static let programs: Result<String, TestFailure> = {
        let script = PrometheusTests.root.appending(path: "Scripts/prometheus").path
        guard let finished = try? Executable.run("/bin/bash", [script]), finished.status == 0 else {
            return .failure(TestFailure("Scripts/prometheus fails; check that Debian's packages can be reached"))
        }
        return .success(finished.output.trimmingCharacters(in: .whitespacesAndNewlines))
    }()

    private static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
        .standardizedFileURL

    private static func promtool(_ arguments: String...) throws -> Finished {
        try Executable.run("\(programs.get())/promtool", arguments)
    }

    /// A Prometheus that scrapes every second.
    private struct Server {
        let running: Running
        let address: SocketAddress

        init(in workspace: Workspace, watching addresses: [SocketAddress]) throws {
            let targets = addresses.map { "'\($0.description.dropFirst("tcp:".count))'" }.joined(separator: ", ")
            let port = UInt16.random(in: 20_000..<30_000)
            let config = workspace.file("prometheus.yml")
            let text = """
                global: {scrape_interval: 1s, evaluation_interval: 1s}
                rule_files: [\(PrometheusTests.root.path)/Monitoring/alerts.yml]
                scrape_configs:
                  - job_name: pageferry
                    static_configs: [{targets: [\(targets)]}]
                """
            try Data(text.utf8).write(to: URL(filePath: config))
            running = try Running(
                "\(PrometheusTests.programs.get())/prometheus",
                [
                    "--config.file=\(config)", "--storage.tsdb.path=\(workspace.file("tsdb"))",
                    "--web.listen-address=127.0.0.1:\(port)", "--web.console.templates=/", "--web.console.libraries=/",
                ]
            )
            address = .tcp(host: "127.0.0.1", port: port)
            do {
                _ = try running.errorLine(holding: "Server is ready to receive web requests", seconds: 60)
            } catch {
                running.end()
                throw error
            }
        }

        /// The values of a query, by the value of one of their labels.
        func query(_ expression: String, by label: String = "instance") throws -> [String: Double] {
            let allowed = CharacterSet.alphanumerics
            let encoded = try #require(expression.addingPercentEncoding(withAllowedCharacters: allowed))
            let reply = try #require(try HTTPClient.request("GET", "/api/v1/query?query=\(encoded)", at: address))
            let json = try JSONSerialization.jsonObject(with: Data(reply.body.utf8)) as? [String: Any]
            let result = (json?["data"] as? [String: Any])?["result"] as? [[String: Any]] ?? []
            return result.reduce(into: [:]) { values, sample in
                let labels = sample["metric"] as? [String: String] ?? [:]
                let value = (sample["value"] as? [Any])?.last as? String
                values[labels[label] ?? ""] = value.flatMap { Double($0) }
            }
        }
    }

    @Test("finds nothing wrong with the metrics of any process")
    func checkMetrics() throws {
        let workspace = try Workspace()
        let http = ["--http", "127.0.0.1:0"]
        let source = try AgentProcess.source(in: workspace, http + ["--workload", "zipf", "--memory", "16MiB"])
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, http + ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let site = try RestoreSite(serverOf: .standIn, serving: http)
        defer { site.end() }
        let migrate = try Executable.migrate(source, destination)
        #expect(migrate.status == 0, "\(migrate)")
        for running in [source.running, destination.running, try #require(site.server)] {
            let address = try WatchTests.page(of: running)
            let reply = try #require(try HTTPClient.request("GET", "/metrics", at: address))
            let file = workspace.file("metrics")
            try Data(reply.body.utf8).write(to: URL(filePath: file))
            let promtool = "\(try PrometheusTests.programs.get())/promtool"
            let finished = try Executable.run("/bin/sh", ["-c", "exec \(promtool) check metrics < \(file)"])
            #expect(finished.status == 0 && finished.output.isEmpty && finished.errors.isEmpty, "\(finished)")
        }
    }

    @Test("accepts the alert rules, which act when they should")
    func rules() throws {
        let folder = PrometheusTests.root.appending(path: "Monitoring").path
        let checked = try PrometheusTests.promtool("check", "rules", "\(folder)/alerts.yml")
        #expect(checked.status == 0, "\(checked)")
        let tested = try PrometheusTests.promtool("test", "rules", "\(folder)/alerts_test.yml")
        #expect(tested.status == 0, "\(tested)")
    }

    /// Starts a handler at five sockets, which names its guests by them, with a guest at each.
    static func startNode(
        of site: RestoreSite,
        _ options: String...
    ) throws -> (handler: Running, guests: [GuestProcess]) {
        let sockets = (1...5).map { site.workspace.file("vm\($0).sock") }
        let handler = try site.run(
            Executable.pageferry,
            site.arguments(
                sockets.flatMap { ["--socket", $0] } + [
                    "--state", site.workspace.file("node"), "--http", "127.0.0.1:0", "--name-from", "socket",
                ] + options
            )
        )
        _ = try site.ready(handler)
        return (handler, try sockets.map { try site.restore(at: $0) })
    }

    @Test("watches a node with five guests of attach by their names, and says that their server is lost")
    func node() throws {
        let workspace = try Workspace()
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, guests) = try PrometheusTests.startNode(of: site)
        let page = try WatchTests.page(of: handler)
        let instance = String(page.description.dropFirst("tcp:".count))
        let prometheus = try Server(in: workspace, watching: [page])
        defer { prometheus.running.end() }
        for guest in guests { _ = try guest.perform(.workingSet) }
        let names = Set((1...5).map { "vm\($0)" })
        try WatchTests.wait("five linked guests", seconds: 60) {
            try prometheus.query(#"pageferry_guests{state="linked"}"#)[instance] == 5
        }
        for metric in [
            #"pageferry_guest_pages_total{origin="demand"}"#, "pageferry_guest_resident_ratio",
            "pageferry_guest_service_seconds_count",
        ] {
            try WatchTests.wait("\(metric) of each guest", seconds: 60) {
                let values = try prometheus.query(metric, by: "name")
                return Set(values.keys) == names && values.values.allSatisfy { $0 > 0 }
            }
        }
        let ids = try prometheus.query("pageferry_guest_memory_pages", by: "pid")
        #expect(Set(ids.keys) == Set(guests.map { String($0.pid) }) && Set(ids.values) == [4096])
        #expect(try prometheus.query(#"ALERTS{alertname="PageferryServerLost"}"#, by: "alertname").isEmpty)
        // Samples that are there twice are dropped, with this warning.
        #expect(!prometheus.running.errorText.contains("Error on ingesting"))
        #expect(try prometheus.query("count by (instance) (pageferry_build_info)")[instance] == 1)

        site.killServer()
        for guest in guests { guest.send(.pass) }
        try WatchTests.wait("the alert", seconds: 60) {
            try prometheus.query(#"ALERTS{alertname="PageferryServerLost"}"#, by: "alertstate")["firing"] != nil
        }
        #expect(try prometheus.query("count by (instance) (pageferry_guest_policy_countdown_seconds)")[instance] == 5)
        try site.startServer()
        for guest in guests { #expect(try guest.wait(for: "pass", seconds: 60) == 1) }
        try WatchTests.wait("the end of the alert", seconds: 60) {
            try prometheus.query(#"ALERTS{alertname="PageferryServerLost"}"#, by: "alertname").isEmpty
        }
    }

    @Test("watches two agents in a migration, and a server with five guests")
    func watches() throws {
        let workspace = try Workspace()
        let http = ["--http", "127.0.0.1:0"]
        let source = try AgentProcess.source(
            in: workspace,
            http + ["--workload", "zipf", "--memory", "64MiB", "--max-bandwidth", "8MiB", "--think-time", "100us"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, http + ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let site = try RestoreSite(serverOf: .standIn, serving: http)
        defer { site.end() }
        try site.startNextHandler()
        let pages = try [source.running, destination.running, #require(site.server)].map(WatchTests.page)
        let names = pages.map { String($0.description.dropFirst("tcp:".count)) }
        let prometheus = try Server(in: workspace, watching: pages)
        defer { prometheus.running.end() }
        try WatchTests.wait("all processes answer") {
            try names.allSatisfy { try prometheus.query("up")[$0] == 1 }
        }
        let guests = try (0..<5).map { _ in try site.restore() }
        let migrate = try Running(
            Executable.pageferry,
            ["migrate", "--source", source.socket, "--destination", destination.socket]
        )
        defer { migrate.end() }
        try WatchTests.wait("the migration under way", seconds: 60) {
            let ratio = try prometheus.query("pageferry_resident_ratio")[names[1]] ?? 0
            return ratio > 0 && ratio < 1
        }
        try WatchTests.wait("the source sends", seconds: 60) {
            try prometheus.query("sum by (instance) (rate(pageferry_lane_bytes_total[10s]))")[names[0]] ?? 0 > 0
        }
        #expect(try migrate.finish(seconds: 120).status == 0)
        try WatchTests.wait("the end of the migration", seconds: 60) {
            try prometheus.query(#"pageferry_migration_state{state="completed"} == 1"#).count == 2
        }
        #expect(try prometheus.query("histogram_quantile(0.5, pageferry_stall_seconds_bucket)")[names[1]] ?? 0 > 0)
        #expect(try prometheus.query("sum by (instance) (pageferry_pages_total)")[names[1]] ?? 0 >= 16384)
        try WatchTests.wait("five guests", seconds: 60) {
            try prometheus.query("pageferry_server_sessions")[names[2]] == 5
        }
        #expect(try prometheus.query("pageferry_server_connections")[names[2]] ?? 0 >= 10)
        #expect(try prometheus.query(#"ALERTS{alertstate="firing"}"#, by: "alertname").isEmpty)
        // A process that is gone is noticed.
        withExtendedLifetime(guests) { source.end() }
        try WatchTests.wait("the alert", seconds: 90) {
            try prometheus.query(#"ALERTS{alertname="PageferryProcessGone"}"#, by: "alertstate")["pending"] != nil
        }
    }
}
