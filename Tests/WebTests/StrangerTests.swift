import Foundation
import HTTPClient
import LinuxSystem
import LogLines
import OwnThread
import Telemetry
import Testing

@testable import Web

@Suite("Strangers at the HTTP server", .ownThread, .timeLimit(.minutes(2)))
struct StrangerTests {
    /// Checks that the server still answers others.
    private func expectAlive(_ site: Site) throws {
        #expect(try site.get("/healthz")?.status == 200)
    }

    @Test(
        "that do not name this host are refused, as after a DNS rebinding",
        arguments: [
            ("localhost", 200), ("LOCALHOST:9100", 200), ("127.0.0.1", 200), ("10.1.2.3:80", 200), ("[::1]:9100", 200),
            ("node1.example", 200), ("evil.example", 421), ("evil.example:9100", 421), ("127.0.0.1.evil.example", 421),
            ("localhost.evil.example", 421), ("1.2.3", 421), ("[evil]", 421), ("localhost:x", 421), ("", 421),
            ("user@localhost", 421), ("127.0.0.256", 421), ("+1.+2.+3.+4", 421), (nil, 421),
        ] as [(String?, Int)]
    )
    func rebinding(host: String?, status: Int) async throws {
        try await withSite(changing: { $0.names = ["Node1.example"] }) { site in
            for path in ["/", "/metrics", "/api/state"] {
                #expect(try site.get(path, host: host)?.status == status, "\(path)")
            }
            try expectAlive(site)
        }
    }

    @Test("that send two names of a host are refused")
    func twoHosts() async throws {
        try await withSite { site in
            let client = try HTTPClient(site.address)
            try client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
            #expect(try client.reply()?.status == 400)
        }
    }

    @Test("find no other path and no other method", arguments: ["/x", "/../etc/passwd", "/api", "/api/guests/x/fill"])
    func unknown(path: String) async throws {
        try await withSite { site in
            for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
                let reply = try HTTPClient(site.address).request(method, path)
                #expect(reply?.status == 404, "\(method)")
            }
            #expect(try site.act(path)?.status == 404)
            for known in ["/", "/metrics", "/api/events"] {
                let wrong = try #require(try site.get(known, "DELETE"))
                #expect(wrong.status == 405 && wrong.fields["allow"] == "GET, HEAD")
                #expect(try site.act(known)?.status == 405)
            }
            try expectAlive(site)
        }
    }

    @Test("that do not know the token cannot act")
    func wrongToken() async throws {
        try await withSite { site in
            let json = "application/json"
            for token in [
                "", "x", Site.token + "x", String(Site.token.dropLast()), String(repeating: "a", count: 8000),
            ] {
                let fields = ["Authorization": "Bearer \(token)", "Content-Type": json]
                #expect(try site.act("/api/cancel", fields: fields)?.status == 401)
            }
            #expect(try site.act("/api/cancel", fields: ["Content-Type": json])?.status == 401)
            let basic = ["Authorization": "Basic \(Site.token)", "Content-Type": json]
            #expect(try site.act("/api/cancel", fields: basic)?.status == 401)
            #expect(site.stub.actions.isEmpty)
            // An operator must know who tries.
            #expect(site.log.count(of: "127.0.0.1 has sent a wrong token") == 7)
            try expectAlive(site)
        }
        try await withSite(control: false) { site in
            let refused = try #require(try site.act("/api/cancel"))
            #expect(refused.status == 403 && refused.body.contains("--http-control"))
            #expect(try site.get("/api/state")?.body.contains(#""control":false"#) == true)
        }
    }

    @Test("cannot act through the browser of somebody who knows the token")
    func crossSite() async throws {
        try await withSite { site in
            for (name, value) in [
                ("Origin", "http://evil.example"), ("Origin", "null"), ("Origin", "https://localhost"),
                ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"),
            ] {
                let fields = Site.allowed.merging([name: value]) { $1 }
                #expect(try site.act("/api/cancel", fields: fields)?.status == 403, "\(name): \(value)")
            }
            // A form can send these types without asking this server first.
            for type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
                let fields = Site.allowed.merging(["Content-Type": type]) { $1 }
                #expect(try site.act("/api/cancel", fields: fields)?.status == 415, "\(type)")
            }
            #expect(site.stub.actions.isEmpty)
            let own = ["Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"]
            #expect(try site.act("/api/cancel", fields: Site.allowed.merging(own) { $1 })?.status == 204)
            // A proxy that speaks TLS forwards the browser's origin.
            let proxied = ["Origin": "https://localhost", "Sec-Fetch-Site": "same-origin"]
            #expect(try site.act("/api/cancel", fields: Site.allowed.merging(proxied) { $1 })?.status == 204)
            try expectAlive(site)
        }
    }

    @Test(
        "that send another body are told its form",
        arguments: [
            ("/api/recover", "{}"), ("/api/recover", #"{"uri":7}"#), ("/api/recover", #"{"uri":""}"#),
            ("/api/recover", "nonsense"), ("/api/recover", "[]"), ("/api/cancel", "x"),
            ("/api/guests/1/fill", #"{"rate_bytes_per_s":-1}"#), ("/api/guests/1/fill", #"{"rate_bytes_per_s":1e99}"#),
            ("/api/guests/1/fill", #"{"rate_bytes_per_s":0}"#), ("/api/cont", String(repeating: "[", count: 4000)),
        ]
    )
    func wrongBody(path: String, body: String) async throws {
        try await withSite { site in
            let reply = try #require(try site.act(path, body))
            #expect(reply.status == 400 && reply.body.contains("the body must be"))
            #expect(site.stub.actions.isEmpty)
        }
    }

    @Test("that send a long body are cut off")
    func longBody() async throws {
        try await withSite { site in
            #expect(try site.act("/api/cont", String(repeating: " ", count: 5000))?.status == 413)
            let client = try HTTPClient(site.address)
            // Some of this is sent before the server ends the connection.
            try? client.send(
                "POST /api/cont HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
                    + String(repeating: " ", count: 1 << 20)
            )
            #expect(try client.isClosed())
            try expectAlive(site)
        }
    }

    @Test(
        "that send no HTTP, or too much of it, get an error and are disconnected",
        arguments: [
            "nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n", "GET /\u{0} HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + String(repeating: "a", count: 20_000) + "\r\n\r\n",
            "GET /" + String(repeating: "a", count: 20_000) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\n" + String(repeating: "X: y\r\n", count: 200) + "\r\n",
            "POST /api/cont HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            "POST /api/cont HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    )
    func nonsense(text: String) async throws {
        try await withSite { site in
            let client = try HTTPClient(site.address)
            // The server may answer and end the connection before all is sent.
            try? client.send(text)
            let status = try client.head()?.status
            #expect(status == nil || (400...431).contains(status ?? 0) || status == 505, "\(status ?? 0)")
            #expect(try client.isClosed())
            try expectAlive(site)
        }
    }

    @Test("that are slow with a request are disconnected, and others are served meanwhile")
    func slowRequests() async throws {
        let change: (inout WebServer.Settings) -> Void = { $0.limits.patience = .milliseconds(500) }
        try await withSite(changing: change) { site in
            let silent = try HTTPClient(site.address)
            let slowHead = try HTTPClient(site.address)
            try slowHead.send("GET / HT")
            let slowBody = try HTTPClient(site.address)
            try slowBody.send("POST /api/cont HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            try expectAlive(site)
            for client in [silent, slowHead, slowBody] { #expect(try client.isClosed()) }
        }
    }

    @Test("that do not read what they asked for are disconnected")
    func slowReaders() async throws {
        let change: (inout WebServer.Settings) -> Void = {
            $0.limits.patience = .milliseconds(500)
            $0.limits.tick = .milliseconds(1)
        }
        try await withSite(changing: change) { site in
            let page = try HTTPClient(site.address)
            try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            _ = try page.head()
            let deadline = MonotonicClock.now() + 30_000_000_000
            var number = 0
            // Each change is sent, until the page's connection takes no more and is ended.
            // On a busy machine, the short patience may end this connection too.
            while (try? site.get("/metrics"))?.body.contains("pageferry_http_event_streams 0\n") != true {
                try #require(MonotonicClock.now() < deadline)
                number += 1
                site.stub.show { state in
                    state.events = [
                        LiveState.Event(
                            unixMilliseconds: UInt64(number),
                            level: "notice",
                            text: String(repeating: "x", count: 100_000)
                        )
                    ]
                    state.migration = LiveState.Migration()
                    state.migration?.error = String(repeating: "\(number)", count: 50_000)
                }
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }

    @Test("that open too many live pages are refused, and keep nobody else out")
    func manyPages() async throws {
        try await withSite { site in
            var pages: [HTTPClient] = []
            for _ in 0..<64 {
                let page = try HTTPClient(site.address)
                try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                #expect(try page.head()?.status == 200)
                pages.append(page)
            }
            for _ in 0..<200 {
                let refused = try #require(try site.get("/api/events"))
                #expect(refused.status == 503 && refused.fields["retry-after"] == "10")
            }
            try expectAlive(site)
            // The end of one of them makes room.
            pages[0].close()
            var status = 503
            while status == 503 {
                let page = try HTTPClient(site.address)
                try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                status = try page.head()?.status ?? 503
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(status == 200)
        }
    }

    @Test("that connect in thousands and say nothing keep nobody out")
    func manyConnections() async throws {
        try await withSite { site in
            DescriptorLimit.raise()
            var clients: [HTTPClient] = []
            for _ in 0..<1000 { clients.append(try HTTPClient(site.address)) }
            try expectAlive(site)
            let metrics = try #require(try site.get("/metrics"))
            let line = try #require(
                metrics.body.split(separator: "\n").first { $0.hasPrefix("pageferry_http_connections ") }
            )
            #expect(Int(line.split(separator: " ")[1]) ?? 1000 <= 256)
        }
    }

    @Test("that fill all places with requests get an answer, and the next one is told to wait")
    func full() async throws {
        try await withSite(changing: { $0.limits.connections = 4 }) { site in
            var pages: [HTTPClient] = []
            for _ in 0..<4 {
                let page = try HTTPClient(site.address)
                try page.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                #expect(try page.head()?.status == 200)
                pages.append(page)
            }
            let next = try HTTPClient(site.address)
            #expect(try next.head()?.status == 503)
            #expect(try next.isClosed())
        }
    }
}
