import Firecracker
import LinuxSystem
import OwnThread
import Testing

/// Answers that Firecracker would not give.
@Suite("An answer of the API", .ownThread, .timeLimit(.minutes(1)))
struct AnswerTests {
    let site: Site

    init() throws {
        site = try Site()
    }

    @Test(
        "that is cut short or no answer at all says so in one line",
        arguments: [
            ("", "it hung up without an answer"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "it hung up in the middle of its answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"state\":", "it hung up in the middle of its answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "it answered '[]'"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "it does not answer in HTTP"),
            ("HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n", "400 Bad Request: it did not say why"),
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

    @Test("of a Firecracker that knows no huge pages is one of small pages")
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

    @Test("that does not end is given up")
    func isEndless() throws {
        let server = try OneAnswer(
            "HTTP/1.1 200 OK\r\n\r\n" + String(repeating: " ", count: 2 << 20),
            at: site.file("api.sock")
        )
        defer { server.end() }
        let failure = try #require(throws: FirecrackerError.self) {
            try FirecrackerAPI(socketPath: site.file("api.sock")).instance()
        }
        #expect(failure.description.contains("its answer exceeds 1048576 bytes"), "\(failure)")
    }

    @Test("does not come where nobody listens, or where nobody can")
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

/// Gives one caller an answer, and hangs up.
private final class OneAnswer: Sendable {
    private let listener: Listener
    private let threads = ThreadGroup()

    init(_ answer: String, at path: String) throws {
        listener = try Listener(at: .unix(path: path))
        try threads.run("answer") { [self] in
            guard let socket = try? listener.accept() else { return }
            var request = [UInt8](repeating: 0, count: 4096)
            _ = request.withUnsafeMutableBytes { try? socket.receive(into: $0) }
            // Who does not take all of it is what some tests are about.
            try? socket.send(Array(answer.utf8))
        }
    }

    func end() {
        listener.shutdown()
        threads.join()
    }
}
