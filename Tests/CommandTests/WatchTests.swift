import FirecrackerRig
import Foundation
import HTTPClient
import LinuxSystem
import Testing

@Suite("A process that is watched", .timeLimit(.minutes(3)))
struct WatchTests {
    /// The address of the live page, from the `ready` line of a process.
    static func page(of running: Running) throws -> SocketAddress {
        let line = try running.line(holding: ", watched at ")
        let url = try #require(line.components(separatedBy: ", watched at http://").last)
        return try SocketAddress(url.replacing("/", with: ""))
    }

    static func json(_ path: String, at address: SocketAddress) throws -> [String: Any] {
        let reply = try #require(try HTTPClient.request("GET", path, at: address))
        return try #require(try JSONSerialization.jsonObject(with: Data(reply.body.utf8)) as? [String: Any])
    }

    /// The samples of a page of metrics, by their names and labels.
    static func metrics(at address: SocketAddress) throws -> [String: Double] {
        let reply = try #require(try HTTPClient.request("GET", "/metrics", at: address))
        var samples: [String: Double] = [:]
        for line in reply.body.split(separator: "\n") where !line.hasPrefix("#") {
            let space = try #require(line.lastIndex(of: " "))
            samples[String(line[..<space])] = Double(line[line.index(after: space)...])
        }
        return samples
    }

    /// Waits until a condition holds.
    static func wait(_ what: String, seconds: Double = 30, _ condition: () throws -> Bool) throws {
        let deadline = MonotonicClock.now() + UInt64(seconds * 1e9)
        while try !condition() {
            guard MonotonicClock.now() < deadline else { throw TestFailure("never: \(what)") }
            usleep(20_000)
        }
    }

    @Test("shows both sides of a migration, from its begin to its end")
    func migration() throws {
        let workspace = try Workspace()
        let http = ["--http", "127.0.0.1:0"]
        let source = try AgentProcess.source(
            in: workspace,
            http + ["--workload", "zipf", "--memory", "64MiB", "--max-bandwidth", "16MiB"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, http + ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let (a, b) = (try WatchTests.page(of: source.running), try WatchTests.page(of: destination.running))
        #expect(try HTTPClient.request("GET", "/readyz", at: a)?.status == 200)
        #expect(try HTTPClient.request("GET", "/readyz", at: b)?.status == 200)
        let page = try HTTPClient(b)
        try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _ = try page.head()
        #expect(try page.event()?.name == "state")
        let migrate = try Executable.migrate(source, destination)
        #expect(migrate.status == 0, "\(migrate)")
        for (address, role) in [(a, "source"), (b, "destination")] {
            let state = try WatchTests.json("/api/state", at: address)
            let migration = try #require(state["migration"] as? [String: Any])
            #expect(migration["role"] as? String == role)
            let sides = try #require(migration["sides"] as? [[String: Any]])
            for side in sides {
                let states = try #require(side["states"] as? [[String: Any]]).map { $0["state"] as? String ?? "" }
                #expect(states.first == "none" && states.last == "completed", "\(role): \(side)")
                #expect(states.contains("postcopy-active"), "\(role): \(side)")
            }
            let pages = try #require(state["pages"] as? [String: Any])
            let counts = ["demand", "prefetched", "pushed", "zero"].map { pages[$0] as? Int ?? -1 }
            #expect(counts.reduce(0, +) == pages["total"] as? Int, "\(role): \(pages)")
            #expect(pages["resident"] as? Int == pages["total"] as? Int, "\(role): \(pages)")
            #expect((state["lanes"] as? [Any])?.count ?? 0 >= 2)
        }
        let metrics = try WatchTests.metrics(at: b)
        #expect(metrics[#"pageferry_resident_ratio{role="destination"}"#] == 1)
        #expect(metrics[#"pageferry_migration_state{role="destination",state="completed"}"#] == 1)
        #expect(metrics[#"pageferry_migrations_total{role="destination",result="completed"}"#] == 1)
        #expect(metrics["pageferry_stall_seconds_count"] ?? 0 > 0)
        #expect(metrics["pageferry_workload_running"] == 1)
        #expect(try WatchTests.metrics(at: a)["pageferry_workload_running"] == 0)
        // The page has seen the states pass.
        var seen: Set<String> = []
        while !seen.contains("completed") {
            let event = try #require(try page.event())
            guard event.data.contains(#""migration""#) else { continue }
            let tick = try JSONSerialization.jsonObject(with: Data(event.data.utf8)) as? [String: Any]
            let sides = (tick?["migration"] as? [String: Any])?["sides"] as? [[String: Any]] ?? []
            for side in sides where side["own"] as? Bool == true {
                for state in side["states"] as? [[String: Any]] ?? [] { seen.insert(state["state"] as? String ?? "") }
            }
        }
    }

    @Test("maps where the pages lie, while they arrive")
    func map() throws {
        let workspace = try Workspace()
        let http = ["--http", "127.0.0.1:0"]
        let source = try AgentProcess.source(
            in: workspace,
            http + ["--workload", "random", "--memory", "32MiB", "--no-push", "--think-time", "2ms"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, http + ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let (a, b) = (try WatchTests.page(of: source.running), try WatchTests.page(of: destination.running))
        let migrate = try Running(
            Executable.pageferry,
            ["migrate", "--source", source.socket, "--destination", destination.socket]
        )
        defer { migrate.end() }
        try WatchTests.wait("pages on both maps") {
            try [a, b].allSatisfy { address in
                let state = try WatchTests.json("/api/state", at: address)
                guard let map = state["map"] as? [String: Any], let pages = state["pages"] as? [String: Any],
                    let cells = map["cells"] as? Int, let text = map["counts"] as? String,
                    let counts = Data(base64Encoded: text)
                else { return false }
                #expect(counts.count == 6 * cells && cells > 0)
                // The third byte of a cell is the share of pages that a fault waited for.
                let demanded = stride(from: 2, to: counts.count, by: 6).reduce(0) { $0 + Int(counts[$1]) }
                return demanded > 0 && pages["demand"] as? Int ?? 0 > 10
            }
        }
    }

    @Test("keeps what it has measured when the memory is freed")
    func freed() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(
            in: workspace,
            ["--workload", "zipf", "--memory", "16MiB", "--device", "reads-memory", "--device", "broken:load"]
        )
        defer { source.end() }
        let http = ["--http", "127.0.0.1:0"]
        let destination = try AgentProcess.destination(in: workspace, http + ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let address = try WatchTests.page(of: destination.running)
        #expect(try Executable.migrate(source, destination).status == 1)
        try WatchTests.wait("the memory is freed") { try WatchTests.json("/api/state", at: address)["map"] == nil }
        // The first device has read pages, and the second has failed.
        let metrics = try WatchTests.metrics(at: address)
        #expect(metrics[#"pageferry_pages_total{role="destination",origin="demand"}"#] ?? 0 > 0)
        #expect(metrics["pageferry_service_seconds_count"] ?? 0 > 0)
    }

    @Test("is told to act by those who know its token")
    func actions() throws {
        let workspace = try Workspace()
        let token = workspace.file("token")
        try Data("a-token-of-the-tests\n".utf8).write(to: URL(filePath: token))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: token)
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "16MiB", "--http", "127.0.0.1:0", "--http-control", token]
        )
        defer { source.end() }
        let address = try WatchTests.page(of: source.running)
        func act(_ action: String, _ body: String = "{}") throws -> HTTPClient.Reply {
            let fields = ["Authorization": "Bearer a-token-of-the-tests", "Content-Type": "application/json"]
            let reply = try HTTPClient.request("POST", "/api/\(action)", at: address, fields: fields, body: body)
            return try #require(reply)
        }
        #expect(try act("cont").status == 204)
        let pause = try act("pause")
        #expect(pause.status == 409 && pause.body.contains("error"), "\(pause)")
        #expect(try act("recover", #"{"uri":"nonsense"}"#).status == 409)
        #expect(try act("guests/7/fill").status == 404)
        let state = try WatchTests.json("/api/state", at: address)
        #expect(state["control"] as? Bool == true)
        let events = try #require(state["events"] as? [[String: Any]])
        #expect(events.contains { ($0["text"] as? String)?.contains("done by the live page: cont") == true })
    }

    @Test("refuses a token that others can read, or that is none")
    func tokens() throws {
        let workspace = try Workspace()
        let token = workspace.file("token")
        func start() throws -> Finished {
            try Executable.pageferry(
                "source",
                "--qmp",
                workspace.file("x.sock"),
                "--memory",
                "1MiB",
                "--http",
                "127.0.0.1:0",
                "--http-control",
                token
            )
        }
        func expect(_ words: String) throws {
            let finished = try start()
            #expect(finished.status == 1, "\(finished)")
            let last = finished.errors.split(separator: "\n").last.map(String.init) ?? ""
            #expect(last.hasPrefix("pageferry: --http-control: ") && last.contains(words), "\(finished)")
        }
        try expect("No such file")
        try Data("a-token-of-the-tests\n".utf8).write(to: URL(filePath: token))
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: token)
        try expect("chmod o= \(token)")
        for nonsense in ["", "short", "two words that are long enough", "\u{0}\u{1}\u{2}", "a\nlonger-token-here-1"] {
            try Data(nonsense.utf8).write(to: URL(filePath: token))
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: token)
            try expect("does not hold a token")
        }
        try FileManager.default.removeItem(atPath: token)
        try FileManager.default.createDirectory(atPath: token, withIntermediateDirectories: false)
        try expect("give a regular file")
    }

    @Test("exits at once, although live pages are open", arguments: ["source", "destination", "serve"])
    func exits(command: String) throws {
        let workspace = try Workspace()
        let file = workspace.file("vm.mem")
        try Data(count: 65536).write(to: URL(filePath: file))
        let arguments =
            switch command {
            case "source": ["source", "--qmp", workspace.file("a.sock"), "--memory", "16MiB"]
            case "destination": ["destination", "--qmp", workspace.file("b.sock"), "--listen", "127.0.0.1:0"]
            default: ["serve", "--snapshot", file, "--listen", "127.0.0.1:0"]
            }
        let running = try Running(Executable.pageferry, arguments + ["--http", "127.0.0.1:0"])
        defer { running.end() }
        let address = try WatchTests.page(of: running)
        let pages = try (0..<10).map { _ in try HTTPClient(address) }
        for page in pages {
            try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _ = try page.head()
        }
        let begin = MonotonicClock.now()
        kill(running.pid, SIGTERM)
        let finished = try running.finish(seconds: 20)
        #expect(finished.status == 0, "\(finished)")
        #expect(MonotonicClock.time(since: begin) < .seconds(5))
        for page in pages { #expect(try page.isClosed()) }
    }

    @Test("serves guests, and shows what they get")
    func serve() throws {
        let site = try RestoreSite(serverOf: .standIn, serving: ["--http", "127.0.0.1:0"])
        defer { site.end() }
        let address = try WatchTests.page(of: try #require(site.server))
        let before = try WatchTests.metrics(at: address)
        #expect(before["pageferry_server_sessions"] == 0)
        #expect(before["pageferry_snapshot_proved"] == 1)
        let state = try WatchTests.json("/api/state", at: address)
        #expect((state["server"] as? [String: Any])?["path"] as? String == site.snapshot.memory)
    }
}
