import Firecracker
import LinuxSystem
import OwnThread
import Testing

/// Answers that Firecracker itself would not give.
@Suite("An answer of the API", .ownThread, .timeLimit(.minutes(1)))
struct AnswerTests {
    let site: Site

    init() throws {
        site = try Site()
    }

    @Test(
        "that is cut off, or is not an answer, causes an error of one line",
        arguments: [
            ("", "the connection was closed without an answer"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "closed in the middle of the answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"state\":", "closed in the middle of the answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "the answer is '[]'"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
            ("HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n", "400 Bad Request: no reason given"),
            (
                "HTTP/1.1 400 Bad Request\r\nContent-Length: 24\r\n\r\n{\"fault_message\":\"a\\nb\"}",
                "400 Bad Request: a b"
            ),
        ]
    )
    func isWrong(answer: String, reason: String) throws {
        let server = try OneAnswer(answer, at: site.file("api.sock"))
        defer { server.end() }
        let api = FirecrackerAPI(socketPath: site.file("api.sock"))
        let failure = try #require(throws: FirecrackerError.self) { try api.instance() }
        #expect(failure.description.contains(reason), "\(failure)")
        #expect(!failure.description.contains("\n"))
    }

    @Test("without a page size means small pages")
    func isOld() throws {
        let body = #"{"machine-config":{"vcpu_count":2,"mem_size_mib":512,"smt":false}}"#
        let server = try OneAnswer(
            "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)",
            at: site.file("api.sock")
        )
        defer { server.end() }
        let machine = try FirecrackerAPI(socketPath: site.file("api.sock")).machine()
        #expect(machine == Machine(vCPUs: 2, memoryMiB: 512))
    }

    @Test("that does not end is abandoned")
    func isEndless() throws {
        let server = try OneAnswer(
            "HTTP/1.1 200 OK\r\n\r\n" + String(repeating: " ", count: 2 << 20),
            at: site.file("api.sock")
        )
        defer { server.end() }
        let failure = try #require(throws: FirecrackerError.self) {
            try FirecrackerAPI(socketPath: site.file("api.sock")).instance()
        }
        #expect(failure.description.contains("the answer exceeds 1048576 bytes"), "\(failure)")
    }

    @Test("cannot come from a path without a listener, or from one too long for a socket")
    func hasNobody() throws {
        let nobody = try #require(throws: FirecrackerError.self) {
            try FirecrackerAPI(socketPath: site.file("nobody.sock")).pause()
        }
        #expect(
            nobody.description == "cannot pause the microVM at \(site.file("nobody.sock")): No such file or directory; "
                + "check that Firecracker runs there"
        )
        let long = site.file(String(repeating: "x", count: 120))
        let tooLong = try #require(throws: FirecrackerError.self) { try FirecrackerAPI(socketPath: long).pause() }
        #expect(tooLong.description.contains("1 to 107 bytes"), "\(tooLong)")
    }
}

/// Gives one client an answer, and hangs up.
private final class OneAnswer: Sendable {
    private let listener: Listener
    private let threads = ThreadGroup()

    init(_ answer: String, at path: String) throws {
        listener = try Listener(at: .unix(path: path))
        try threads.run("answer") { [self] in
            guard let socket = try? listener.accept() else { return }
            var request = [UInt8](repeating: 0, count: 4096)
            _ = request.withUnsafeMutableBytes { try? socket.receive(into: $0) }
            // In some tests the client closes the connection before it has read the whole answer.
            try? socket.send(Array(answer.utf8))
        }
    }

    func end() {
        listener.shutdown()
        threads.join()
    }
}
