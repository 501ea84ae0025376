import Exposition
import Foundation
import HTTPClient
import LinuxSystem
import OwnThread
import Telemetry
import Testing

@testable import Web

@Suite("The HTTP server", .ownThread, .timeLimit(.minutes(2)))
struct RoutesTests {
    @Test("answers probes, metrics and the state")
    func answers() async throws {
        try await withSite { site in
            #expect(try site.get("/healthz")?.body == "ok\n")
            #expect(try site.get("/readyz")?.status == 200)
            site.stub.be(unready: "nothing to do")
            let unready = try #require(try site.get("/readyz"))
            #expect(unready.status == 503 && unready.body == "nothing to do\n")
            let metrics = try #require(try site.get("/metrics"))
            #expect(metrics.fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
            #expect(metrics.body.contains("pageferry_workload_running 1\n"))
            #expect(metrics.body.contains("pageferry_http_connections_limit 256\n"))
            let open = try #require(try site.get("/metrics", fields: ["Accept": "application/openmetrics-text"]))
            #expect(open.fields["content-type"]?.hasPrefix("application/openmetrics-text") == true)
            #expect(open.body.hasSuffix("# EOF\n"))
            let state = try #require(try site.get("/api/state?now"))
            #expect(state.body.contains(#""kind":"agent""#) && state.body.contains(#""control":true"#))
            #expect(state.fields["cache-control"] == "no-store")
            let head = try #require(try HTTPClient(site.address).request("HEAD", "/metrics"))
            #expect(head.status == 200 && Int(head.fields["content-length"] ?? "") ?? 0 > 100)
        }
    }

    @Test("serves each file of the page, all of them together in at most 200 KiB")
    func page() async throws {
        try await withSite { site in
            for file in PageFile.all {
                let reply = try #require(try site.get(file.path))
                #expect(reply.status == 200 && reply.fields["content-type"] == file.contentType)
                #expect(Array(reply.body.utf8) == file.bytes)
                #expect(reply.fields["content-security-policy"]?.contains("default-src 'none'") == true)
                #expect(reply.fields["x-content-type-options"] == "nosniff")
            }
        }
        #expect(PageFile.all.reduce(0) { $0 + $1.bytes.count } <= 200 << 10)
        // A browser asks for nothing else.
        let html = String(decoding: PageFile.all[0].bytes, as: UTF8.self)
        for link in html.matches(of: /(?:src|href)="([^"#]+)"/).map({ String($0.1) }) {
            let isKnown = PageFile.all.contains { $0.name == link } || ["metrics", "api/state"].contains(link)
            #expect(isKnown, "\(link)")
        }
    }

    @Test("keeps a connection open for further requests")
    func keepsAlive() async throws {
        try await withSite { site in
            let client = try HTTPClient(site.address)
            for _ in 0..<5 { #expect(try client.request("GET", "/healthz")?.status == 200) }
            // Requests that are sent ahead are answered in their order.
            try client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: [::1]:1\r\n\r\n")
            #expect(try client.reply()?.status == 421)
            #expect(try client.reply()?.status == 404)
        }
    }

    @Test("answers at a Unix socket under any name")
    func unixSocket() async throws {
        let path = "/tmp/pft-web-\(UInt32.random(in: 0...UInt32.max)).sock"
        try await withSite(at: .unix(path: path)) { site in
            let reply = try site.get("/healthz", host: "anything.example")
            #expect(reply?.status == 200)
        }
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test(
        "carries out actions for those who know the token",
        arguments: [
            ("/api/cancel", "{}", .cancel), ("/api/cont", "", .cont), ("/api/pause", "{}", .pause),
            ("/api/recover", #"{"uri":"tcp:h:1"}"#, .recover(uri: "tcp:h:1")),
            ("/api/guests/12/fill", #"{"rate_bytes_per_s":5}"#, .fill(.process(12), bytesPerSecond: 5)),
            ("/api/guests/12/fill", #"{"rate_bytes_per_s":null}"#, .fill(.process(12), bytesPerSecond: 0)),
            ("/api/guests/12/release", "{}", .release(.process(12))),
            ("/api/guests/outside-3/release", "{}", .release(.outside(3))),
        ] as [(String, String, LiveAction)]
    )
    func actions(path: String, body: String, action: LiveAction) async throws {
        try await withSite { site in
            #expect(try site.act(path, body)?.status == 204)
            #expect(site.stub.actions == [action])
            site.stub.refuse(ActionRefused(reason: "no \"migration\""))
            let refused = try #require(try site.act(path, body))
            #expect(refused.status == 409 && refused.body == #"{"error":"no \"migration\""}"#)
            for method in ["GET", "PUT", "DELETE"] {
                let wrong = try #require(try site.get(path, method))
                #expect(wrong.status == 405 && wrong.fields["allow"] == "POST", "\(method)")
            }
        }
    }

    @Test("looks at a slow process once for all who ask meanwhile", arguments: ["/api/state", "/metrics"])
    func slowLook(path: String) async throws {
        try await withSite { site in
            site.stub.take(.seconds(4))
            let clients = try (0..<6).map { _ in try HTTPClient(site.address) }
            for client in clients {
                try client.send("GET \(path) HTTP/1.1\r\nHost: localhost\r\n\r\n")
                // Longer than a look stays fresh.
                try await Task.sleep(for: .milliseconds(120))
            }
            for client in clients { #expect(try client.reply()?.status == 200) }
            #expect(site.stub.looks == 1)
            // The next client gets figures of its own time.
            site.stub.take(.zero)
            #expect(try site.get(path)?.status == 200)
            #expect(site.stub.looks == 2)
        }
    }

    @Test("sends the state and then its changes to live pages")
    func events() async throws {
        try await withSite { site in
            let pages = try (0..<3).map { _ in try HTTPClient(site.address) }
            for page in pages {
                try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                let head = try #require(try page.head())
                #expect(head.status == 200 && head.fields["content-type"] == "text/event-stream")
                let first = try #require(try page.event())
                #expect(first.name == "state" && first.data.contains(#""kind":"agent""#))
            }
            site.stub.show { $0.pages = LiveState.Pages() }
            var ids: Set<String> = []
            for page in pages {
                let tick = try #require(try page.event())
                #expect(tick.name == "tick" && tick.data.contains(#""pages":{"#))
                #expect(!tick.data.contains("kind"))
                ids.insert(tick.id)
            }
            // One tick serves all pages.
            #expect(ids.count == 1)
        }
    }

    @Test("looks at the process only while a page is open")
    func idle() async throws {
        try await withSite { site in
            let page = try HTTPClient(site.address)
            try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _ = try page.head()
            _ = try page.event()
            page.close()
            // The end of the last stream ends the looks.
            var looks = -1
            while looks != site.stub.looks {
                looks = site.stub.looks
                try await Task.sleep(for: .milliseconds(300))
            }
            #expect(try site.get("/metrics")?.body.contains("pageferry_http_event_streams 0\n") == true)
        }
    }

    @Test("keeps a live page whose process does not change")
    func keepAlive() async throws {
        try await withSite(changing: { $0.limits.keepAlive = .milliseconds(100) }) { site in
            let page = try HTTPClient(site.address)
            try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _ = try page.head()
            #expect(try page.event()?.name == "state")
            let tick = try #require(try page.event())
            #expect(tick.name == "tick" && tick.data.contains(#""unix_ms":"#) && !tick.data.contains(","))
        }
    }

    @Test("ends at once, with all live pages", .timeLimit(.minutes(1)))
    func ends() async throws {
        try await withSite { site in
            let page = try HTTPClient(site.address)
            try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _ = try page.head()
            await site.server.end()
            #expect(try page.isClosed())
            #expect(throws: (any Error).self) { try HTTPClient(site.address) }
        }
    }

    @Test("shows 1000 guests in little time", .timeLimit(.minutes(1)))
    func manyGuests() async throws {
        try await withSite { site in
            site.stub.have(
                (1...1000 as ClosedRange<Int32>).map {
                    var guest = LiveGuest(
                        id: .process($0),
                        name: "firecracker",
                        socket: "/srv/jailer/firecracker/vm\($0)/root/run/uffd.sock",
                        state: "linked",
                        server: "tcp:10.0.0.1:7200",
                        policy: "hold"
                    )
                    (guest.total, guest.resident, guest.p50, guest.served) = (262_144, 1234, 87.5, 1234)
                    return guest
                }
            )
            let begin = MonotonicClock.now()
            let metrics = try #require(try site.get("/metrics"))
            let time = MonotonicClock.time(since: begin)
            #expect(metrics.body.split(separator: "\n").count > 10_000)
            // The writer's own bound is 50 ms; see MetricTextTests.
            #expect(time < .seconds(2))
        }
    }
}
