import LinuxSystem
import Testing

@testable import QMP

@Suite(.timeLimit(.minutes(1))) struct QMPServerTests {
    @Test func `a client is greeted, negotiates and is answered`() async throws {
        try await withServer { _, _, path in
            let client = try RawConnection(path: path)
            let greeting = try #require(try await client.message())
            #expect(greeting["QMP"]?["version"]?["qemu"] == ["major": 10, "minor": 2, "micro": 0])
            #expect(greeting["QMP"]?["version"]?["package"] == "pageferry")
            #expect(greeting["QMP"]?["capabilities"] == ["oob"])
            let early = try await client.exchange(#"{"execute":"echo"}"#)
            #expect(early?["error"]?["class"] == "CommandNotFound")
            #expect(try await client.exchange(#"{"execute":"qmp_capabilities"}"#) == ["return": [:]])
            #expect(
                try await client.exchange(#"{"execute":"echo","arguments":{"a":[1,null]},"id":{"n":1}}"#)
                    == ["return": ["a": [1, nil]], "id": ["n": 1]]
            )
            #expect(
                try await client.exchange(#"{"execute":"fail","id":"f"}"#)
                    == ["error": ["class": "DeviceNotActive", "desc": "disk0 is locked"], "id": "f"]
            )
            let names = try await client.exchange(#"{"execute":"query-commands"}"#)
            #expect(names?["return"]?.array?.contains(["name": "wait"]) == true)
            #expect(names?["return"]?.array?.contains(["name": "qmp_capabilities"]) == true)
        }
    }

    @Test func `messages are answered however they are split or joined`() async throws {
        try await withServer { _, _, path in
            let client = try await RawConnection.negotiated(path: path)
            for byte in #"{"execute":"echo","arguments":{"a":"}"}}"#.utf8 { try await client.send(bytes: [byte]) }
            #expect(try await client.message() == ["return": ["a": "}"]])
            let echo = #"{"execute":"echo","id":"#
            try await client.send("\(echo)1}\(echo)2}\r\n \t\(echo)3}\n\n")
            for id in 1...3 { #expect(try await client.message() == ["return": [:], "id": JSONValue(id)]) }
        }
    }

    @Test(arguments: [
        ("{\"execute\":}\n", "JSON parse error, expecting a value, found '}' at byte 11"),
        ("{\"execute\": \"echo\n", "JSON parse error, control character in a string"),
        ("hello\n", "JSON parse error, expecting a value, found 'h' at byte 0"),
        ("}\n", "JSON parse error, stray '}'"),
        ("[]", "QMP input must be a JSON object"),
        ("17\n", "QMP input must be a JSON object"),
        ("{}", "QMP input lacks member 'execute'"),
        ("{\"execute\":\"echo\",\"x\":1}", "QMP input member 'x' is unexpected"),
        ("{\"exec-oob\":\"echo\"}", "QMP input member 'exec-oob' is unexpected"),
    ])
    func `an error names the bad input and keeps the connection open`(input: String, description: String) async throws {
        try await withServer { _, _, path in
            let client = try await RawConnection.negotiated(path: path)
            #expect(
                try await client.exchange(input) == ["error": ["class": "GenericError", "desc": .string(description)]]
            )
            #expect(try await client.exchange(#"{"execute":"echo","id":1}"#) == ["return": [:], "id": 1])
        }
    }

    @Test func `a slow command delays only its own client`() async throws {
        try await withServer { _, handler, path in
            let slow = try await RawConnection.negotiated(path: path)
            let other = try await RawConnection.negotiated(path: path)
            try await slow.send(#"{"execute":"wait","id":1}{"execute":"echo","id":2}{"execute":}"#)
            for await _ in handler.waits.stream { break }
            #expect(try await other.exchange(#"{"execute":"echo","id":9}"#) == ["return": [:], "id": 9])
            #expect(try await other.exchange(#"{"execute":"open"}"#) == ["return": [:]])
            #expect(try await slow.message() == ["return": "opened", "id": 1])
            #expect(try await slow.message() == ["return": [:], "id": 2])
            #expect(try await slow.message()?["error"]?["class"] == "GenericError")
        }
    }

    @Test func `an out-of-band command overtakes the running one`() async throws {
        try await withServer { _, handler, path in
            let client = try await RawConnection.negotiated(path: path, enable: "\"oob\"")
            try await client.send(#"{"execute":"wait","id":1}{"execute":"echo","id":2}"#)
            for await _ in handler.waits.stream { break }
            #expect(try await client.exchange(#"{"exec-oob":"echo","id":3}"#) == ["return": [:], "id": 3])
            let other = try await RawConnection.negotiated(path: path)
            _ = try await other.exchange(#"{"execute":"open"}"#)
            #expect(try await client.message() == ["return": "opened", "id": 1])
            #expect(try await client.message() == ["return": [:], "id": 2])
        }
    }

    @Test func `events reach all negotiated clients in order, before the reply that follows them`() async throws {
        try await withServer { server, _, path in
            let one = try await RawConnection.negotiated(path: path)
            let two = try await RawConnection.negotiated(path: path)
            let early = try RawConnection(path: path)
            #expect(try await early.message()?["QMP"] != nil)
            try await one.send(#"{"execute":"announce","arguments":{"count":50},"id":1}"#)
            for client in [one, two] {
                var last = QMPEvent.Timestamp(seconds: 0, microseconds: 0)
                for number in 0..<50 {
                    let message = try #require(try await client.message())
                    let event = try #require(QMPEvent(json: message))
                    #expect(event.name == "STEP")
                    #expect(event.data == ["number": JSONValue(number)])
                    #expect(event.timestamp >= last)
                    last = event.timestamp
                }
                #expect(last.seconds > 1_700_000_000)
            }
            #expect(try await one.message() == ["return": [:], "id": 1])
            #expect(try await early.exchange(#"{"execute":"qmp_capabilities"}"#) == ["return": [:]])
            server.broadcast(event: "STOP")
            let stop = try #require(try await early.message())
            #expect(stop["event"] == "STOP")
            #expect(stop["data"] == nil)
        }
    }

    @Test func `a client that has finished sending gets its answers, then the end`() async throws {
        try await withServer { _, handler, path in
            let client = try RawConnection(path: path)
            try await client.send(#"{"execute":"qmp_capabilities"}{"execute":"wait","id":1}{"execute":"echo","id":2}"#)
            await client.finishSending()
            for await _ in handler.waits.stream { break }
            let other = try await RawConnection.negotiated(path: path)
            _ = try await other.exchange(#"{"execute":"open"}"#)
            #expect(try await client.message()?["QMP"] != nil)
            #expect(try await client.message() == ["return": [:]])
            #expect(try await client.message() == ["return": "opened", "id": 1])
            #expect(try await client.message() == ["return": [:], "id": 2])
            #expect(try await client.line() == nil)
        }
    }

    @Test func `a command continues when its client disconnects`() async throws {
        try await withServer { _, handler, path in
            do {
                let client = try await RawConnection.negotiated(path: path)
                try await client.send(#"{"execute":"wait"}"#)
                for await _ in handler.waits.stream { break }
            }
            let other = try await RawConnection.negotiated(path: path)
            #expect(try await other.exchange(#"{"execute":"open"}"#) == ["return": [:]])
            #expect(try await other.exchange(#"{"execute":"echo","id":1}"#) == ["return": [:], "id": 1])
        }
    }

    @Test func `commands over TCP are answered`() async throws {
        try await withServer { server, _, _ in
            let address = try await server.listen(on: .tcp(host: "127.0.0.1", port: 0))
            let client = try await QMPClient.connect(to: address)
            #expect(try await client.execute("echo", arguments: ["a": 1]) == ["a": 1])
            await client.close()
        }
    }
}
