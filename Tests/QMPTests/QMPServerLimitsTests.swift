import Glibc
import LinuxSystem
import Testing

@testable import QMP

@Suite(.timeLimit(.minutes(1))) struct QMPServerLimitsTests {
    @Test func `a connection beyond the bound gets the reason and is closed`() async throws {
        var limits = QMPServer.Limits()
        // No client that fills a place may be dropped for another meanwhile.
        limits.negotiation = .seconds(600)
        try await withServer(limits: limits) { _, _, path in
            var clients: [RawConnection] = []
            for _ in 0..<128 {
                clients.append(try RawConnection(path: path))
                #expect(try await clients.last?.message()?["QMP"] != nil)
            }
            let refused = try RawConnection(path: path)
            #expect(try await refused.message()?["error"]?["desc"] == "too many connections, at most 128 at a time")
            #expect(try await refused.line() == nil)
            for client in clients {
                #expect(try await client.exchange(#"{"execute":"qmp_capabilities"}"#) == ["return": [:]])
            }
            // A client that half-closes gets the end of the stream, and then its place is free.
            await clients[0].finishSending()
            #expect(try await clients[0].line() == nil)
            let next = try RawConnection(path: path)
            #expect(try await next.message()?["QMP"] != nil)
        }
    }

    @Test func `clients that do not negotiate in time keep no other out`() async throws {
        var limits = QMPServer.Limits()
        limits.connections = 4
        limits.negotiation = .zero
        try await withServer(limits: limits) { _, _, path in
            let served = try await RawConnection.negotiated(path: path)
            var idle: [RawConnection] = []
            for _ in 0..<8 {
                idle.append(try RawConnection(path: path))
                #expect(try await idle.last?.message()?["QMP"] != nil)
            }
            // The oldest client has made room; the newest and the client that has negotiated keep their places.
            #expect(try await idle[0].line() == nil)
            #expect(try await idle[7].exchange(#"{"execute":"qmp_capabilities"}"#) == ["return": [:]])
            #expect(try await served.exchange(#"{"execute":"echo","id":1}"#) == ["return": [:], "id": 1])
        }
    }

    @Test func `clients of one address take no place of another`() async throws {
        var limits = QMPServer.Limits()
        limits.connections = 4
        limits.negotiation = .seconds(600)
        try await withServer(limits: limits) { server, _, path in
            let tcp = try await server.listen(on: .tcp(host: "127.0.0.1", port: 0))
            var idle: [QMPClient] = []
            for _ in 0..<4 { idle.append(try await QMPClient.connect(to: tcp)) }
            await #expect(throws: (any Error).self) { try await QMPClient.connect(to: tcp) }
            let owner = try await RawConnection.negotiated(path: path)
            #expect(try await owner.exchange(#"{"execute":"echo","id":1}"#) == ["return": [:], "id": 1])
            for client in idle { await client.close() }
        }
    }

    @Test func `a command whose client has left still counts`() async throws {
        var limits = QMPServer.Limits()
        limits.connections = 2
        try await withServer(limits: limits) { _, handler, path in
            let operatorConnection = try await RawConnection.negotiated(path: path)
            let leaving = try await RawConnection.negotiated(path: path)
            try await leaving.send(#"{"execute":"wait","id":1}"#)
            for await _ in handler.waits.stream { break }
            await leaving.disconnect()
            let refused = try RawConnection(path: path)
            #expect(try await refused.message()?["error"] != nil)
            #expect(try await operatorConnection.exchange(#"{"execute":"open"}"#) == ["return": [:]])
            // The place is free once `wait` has returned, but no message reports that to other clients.
            while true {
                let next = try RawConnection(path: path)
                if try await next.message()?["QMP"] != nil { break }
            }
        }
    }

    @Test func `a message that is too long closes its connection with an error`() async throws {
        try await withServer { _, _, path in
            let other = try await RawConnection.negotiated(path: path)
            let client = try await RawConnection.negotiated(path: path)
            let filler = String(repeating: "x", count: 64 * 1024)
            try? await client.send(#"{"execute":"echo","arguments":{"a":"\#(filler)"}}"#)
            let error = try await client.message()
            #expect(error?["error"]?["desc"] == "JSON parse error, message longer than 65536 bytes")
            #expect(try await client.line() == nil)
            #expect(try await other.exchange(#"{"execute":"echo","id":1}"#) == ["return": [:], "id": 1])
        }
    }

    @Test func `a client that does not read is dropped, and other clients are not affected`() async throws {
        try await withServer { _, _, path in
            let stopped = try await RawConnection.negotiated(path: path)
            let other = try await RawConnection.negotiated(path: path)
            // The answers would have about 20 MiB, and the server stops reading the requests long before that.
            let request = #"{"execute":"large","arguments":{"bytes":100000}}"#
            let failure = await #expect(throws: RawConnection.Failure.self) {
                while true { try await stopped.send(request) }
            }
            #expect(failure?.code == EPIPE || failure?.code == ECONNRESET)
            #expect(try await other.exchange(#"{"execute":"echo","id":1}"#) == ["return": [:], "id": 1])
        }
    }

    @Test func `a client that does not read its events is disconnected`() async throws {
        try await withServer { server, _, path in
            let stopped = try await RawConnection.negotiated(path: path)
            let filler = JSONValue.string(String(repeating: "x", count: 100_000))
            for _ in 0..<40 { server.broadcast(event: "MIGRATION", data: ["status": filler]) }
            // The client can read the bytes that the kernel has buffered, and then the end.
            var count = 0
            while (try? await stopped.line()) ?? nil != nil { count += 1 }
            #expect(count < 40)
        }
    }

    @Test func `queued commands are all carried out in order`() async throws {
        try await withServer { _, _, path in
            let client = try await RawConnection.negotiated(path: path)
            let count = 2000
            async let sending: Void = client.send(
                (0..<count).map { #"{"execute":"echo","id":\#($0)}"# }.joined()
            )
            try await sending
            for id in 0..<count { #expect(try await client.message()?["id"] == JSONValue(id)) }
        }
    }

    @Test func `only its owner can use the socket`() async throws {
        try await withServer { _, _, path in
            var file = stat()
            #expect(lstat(path, &file) == 0)
            #expect(file.st_mode == S_IFSOCK | 0o600)
        }
    }

    @Test func `a program that this process starts inherits no socket`() async throws {
        try await withServer { server, _, path in
            let tcp = try await server.listen(on: .tcp(host: "127.0.0.1", port: 0))
            let clients = [
                try await QMPClient.connect(to: .unix(path: path)), try await QMPClient.connect(to: tcp),
            ]
            for client in clients { _ = try await client.execute("echo") }
            // Other tests in this process have descriptors too; these two sockets are known by their names.
            var found = 0
            for descriptor in 3..<CInt(1 << 16) where socketName(descriptor)?.hasSuffix(path) == true {
                #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC == FD_CLOEXEC)
                found += 1
            }
            // The two are the listener and the accepted end.
            #expect(found == 2)
            for client in clients { await client.close() }
        }
    }

    /// The path that a Unix socket of this process is bound to; nil for any other descriptor.
    private func socketName(_ descriptor: CInt) -> String? {
        var address = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard status == 0, address.sun_family == sa_family_t(AF_UNIX) else { return nil }
        return withUnsafeBytes(of: &address.sun_path) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    @Test func `a server removes only its own socket file`() async throws {
        try await withServer { server, _, path in
            unlink(path)
            let next = QMPServer(handler: ScriptedHandler())
            try await next.listen(on: .unix(path: path))
            await server.shutdown()
            let client = try RawConnection(path: path)
            #expect(try await client.message()?["QMP"] != nil)
            await next.shutdown()
        }
    }

    @Test func `an address in use is an error, and its present server continues`() async throws {
        try await withServer { _, _, path in
            let other = QMPServer(handler: ScriptedHandler())
            let error = await #expect(throws: SystemError.self) { try await other.listen(on: .unix(path: path)) }
            #expect(error?.advice == "another process listens there; choose another path")
            let client = try RawConnection(path: path)
            #expect(try await client.message()?["QMP"] != nil)
            await other.shutdown()
        }
    }

    @Test func `shutdown cancels commands, delivers their answers and leaves nothing behind`() async throws {
        try await withServer { server, handler, path in
            let idle = try RawConnection(path: path)
            _ = try await idle.line()
            let busy = try await RawConnection.negotiated(path: path)
            try await busy.send(#"{"execute":"wait","id":1}{"execute":"echo","id":2}"#)
            for await _ in handler.waits.stream { break }
            #expect(socketsBound(to: path) == 3)
            await server.shutdown()
            #expect(access(path, F_OK) == -1)
            #expect(socketsBound(to: path) == 0)
            #expect(
                try await busy.message()
                    == ["error": ["class": "GenericError", "desc": "wait was cancelled"], "id": 1]
            )
            #expect(try await busy.line() == nil)
            #expect(try await idle.line() == nil)
            await server.shutdown()
            await #expect(throws: QMPConnectionError.self) { try await server.listen(on: .unix(path: path)) }
            #expect(access(path, F_OK) == -1)
        }
    }

    @Test func `a server can be restarted at the same address`() async throws {
        try await withDirectory { directory in
            for _ in 0..<20 {
                let server = QMPServer(handler: ScriptedHandler())
                try await server.listen(on: .unix(path: "\(directory)/a"))
                let client = try await QMPClient.connect(to: .unix(path: "\(directory)/a"))
                #expect(try await client.execute("echo") == [:])
                await server.shutdown()
                await #expect(throws: QMPConnectionError.self) { try await client.execute("echo") }
            }
        }
    }
}
