import Dispatch
import Glibc
import LinuxSystem
import Testing

@testable import QMP

@Suite(.timeLimit(.minutes(1))) struct QMPClientTests {
    @Test func `commands return results and errors as the server sent them`() async throws {
        try await withServer { _, _, path in
            let client = try await QMPClient.connect(to: .unix(path: path))
            #expect(client.serverVersion == QMPVersion())
            #expect(client.serverCapabilities == ["oob"])
            #expect(try await client.execute("echo", arguments: ["a": 1]) == ["a": 1])
            await #expect(throws: QMPError(.deviceNotActive, "disk0 is locked")) { try await client.execute("fail") }
            await #expect(throws: QMPError.commandNotFound("foo")) { try await client.execute("foo") }
            await #expect(throws: QMPError.self) { try await client.execute("echo", outOfBand: true) }
            let large = try await client.execute("large", arguments: ["bytes": 200_000])
            #expect(large.string?.utf8.count == 200_000)
        }
    }

    @Test func `several commands may be under way`() async throws {
        try await withServer { _, _, path in
            let client = try await QMPClient.connect(to: .unix(path: path), outOfBand: true)
            let waiting = Task { try await client.execute("wait") }
            let results = try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<30 {
                    group.addTask {
                        let arguments: [String: JSONValue] = ["n": JSONValue(number)]
                        return try await client.execute("echo", arguments: arguments, outOfBand: true)
                            == .object(arguments)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(results == Array(repeating: true, count: 30))
            #expect(try await client.execute("open", outOfBand: true) == [:])
            #expect(try await waiting.value == "opened")
        }
    }

    @Test func `events arrive in order and end with the connection`() async throws {
        try await withServer { server, _, path in
            let client = try await QMPClient.connect(to: .unix(path: path))
            _ = try await client.execute("announce", arguments: ["count": 100])
            await server.shutdown()
            var numbers: [Int64] = []
            for await event in client.events { numbers.append(event.data["number"]?.integer ?? -1) }
            #expect(numbers == Array(0..<100))
        }
    }

    @Test func `a cancelled command returns while the server continues`() async throws {
        try await withServer { _, handler, path in
            let client = try await QMPClient.connect(to: .unix(path: path))
            let waiting = Task { try await client.execute("wait") }
            for await _ in handler.waits.stream { break }
            waiting.cancel()
            await #expect(throws: CancellationError.self) { try await waiting.value }
            let other = try await QMPClient.connect(to: .unix(path: path))
            _ = try await other.execute("open")
            #expect(try await client.execute("echo") == [:])
        }
    }

    @Test func `closing fails the commands under way with an error that names the address`() async throws {
        try await withServer { _, handler, path in
            let client = try await QMPClient.connect(to: .unix(path: path))
            let waiting = Task { try await client.execute("wait") }
            for await _ in handler.waits.stream { break }
            await client.close()
            let error = await #expect(throws: QMPConnectionError.self) { try await waiting.value }
            #expect(error?.description == "lost the connection to unix:\(path): it was closed here")
            await #expect(throws: QMPConnectionError.self) { try await client.execute("echo") }
        }
    }

    @Test func `the error about a missing server names its address`() async throws {
        try await withDirectory { directory in
            let address = SocketAddress.unix(path: "\(directory)/a")
            let error = await #expect(throws: QMPConnectionError.self) { try await QMPClient.connect(to: address) }
            #expect(
                error?.description
                    == "cannot connect to unix:\(directory)/a: No such file or directory; check the path, "
                    + "and that the agent runs"
            )
        }
    }

    @Test func `connecting to a server that does not greet times out`() async throws {
        try await withDirectory { directory in
            let silent = try Listener(at: .unix(path: "\(directory)/a")).relinquish()
            defer { close(silent) }
            let error = await #expect(throws: QMPConnectionError.self) {
                try await QMPClient.connect(
                    to: .unix(path: "\(directory)/a"),
                    within: .milliseconds(50)
                )
            }
            #expect(error?.reason == "no QMP greeting or answer in time")
        }
    }

    @Test func `connecting can be cancelled`() async throws {
        try await withDirectory { directory in
            let silent = try Listener(at: .unix(path: "\(directory)/a")).relinquish()
            defer { close(silent) }
            let connecting = Task {
                try await QMPClient.connect(to: .unix(path: "\(directory)/a"), within: .seconds(3600))
            }
            connecting.cancel()
            await #expect(throws: CancellationError.self) { try await connecting.value }
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 400 Bad Request\r\n", "the server does not speak QMP: JSON parse error"),
        ("{\"hello\":1}\r\n", "the server does not speak QMP: it sent {\"hello\":1}"),
        ("{\"error\":{\"class\":\"GenericError\",\"desc\":\"too many\"}}\r\n", "the server answered: too many"),
        ("", "the server closed it"),
    ])
    func `the error about a server that does not speak QMP says so`(greeting: String, reason: String) async throws {
        try await withDirectory { directory in
            let other = try Listener(at: .unix(path: "\(directory)/a")).relinquish()
            defer { close(other) }
            let client = Task { try await QMPClient.connect(to: .unix(path: "\(directory)/a")) }
            try await RawConnection.answerOne(other, with: greeting)
            let error = await #expect(throws: QMPConnectionError.self) { try await client.value }
            #expect(error?.reason.hasPrefix(reason) == true)
        }
    }
}

extension RawConnection {
    /// Accepts one connection, sends a text and closes it.
    fileprivate static func answerOne(_ listener: CInt, with text: String) async throws {
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            DispatchQueue(label: "server of another kind").async {
                var waiting = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
                guard poll(&waiting, 1, 10_000) == 1 else { return done.resume(throwing: Failure(call: "poll")) }
                let descriptor = accept(listener, nil, nil)
                let bytes = Array(text.utf8)
                let sent = Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL))
                if sent == bytes.count { done.resume() } else { done.resume(throwing: Failure(call: "send")) }
                close(descriptor)
            }
        }
    }
}
