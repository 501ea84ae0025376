import Glibc
import LinuxSystem
import Synchronization

@testable import QMP

/// A handler whose commands let a test decide when they end.
final class ScriptedHandler: QMPHandler {
    let commands = [
        QMPCommandDescription("announce", arguments: [.required("count", .integer)]),
        QMPCommandDescription("echo", arguments: [.optional("a", .any), .optional("n", .any)], result: .any),
        QMPCommandDescription("fail"),
        QMPCommandDescription("large", arguments: [.required("bytes", .integer)], result: .string),
        QMPCommandDescription("open"),
        QMPCommandDescription("wait", result: .string),
    ]
    let events = [QMPEventDescription("STEP", data: [.required("number", .integer)])]

    private let server = Mutex<QMPServer?>(nil)
    private let opened = AsyncStream.makeStream(of: Void.self)
    /// A stream with an element for each `wait` that has begun.
    let waits = AsyncStream.makeStream(of: Void.self)

    func attach(_ server: QMPServer?) {
        self.server.withLock { $0 = server }
    }

    func handle(_ command: QMPCommand) async throws(QMPError) -> JSONValue {
        switch command.name {
        case "announce":
            let server = server.withLock(\.self)
            for number in 0..<(try command.integer("count")) {
                server?.broadcast(event: "STEP", data: ["number": .integer(number)])
            }
            return [:]
        case "echo":
            return .object(command.arguments)
        case "fail":
            throw QMPError(.deviceNotActive, "disk0 is locked")
        case "large":
            return .string(String(repeating: "x", count: Int(try command.integer("bytes"))))
        case "open":
            opened.continuation.yield()
            return [:]
        case "wait":
            waits.continuation.yield()
            for await _ in opened.stream { return "opened" }
            throw .generic("wait was cancelled")
        default:
            throw .commandNotFound(command.name)
        }
    }
}

/// Calls the body with a directory for sockets, which is removed afterwards.
func withDirectory<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    var template = Array("/tmp/qmp-tests-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw RawConnection.Failure(call: "mkdtemp") }
    let directory = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    defer {
        for name in ["a", "b"] { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }
    return try await body(directory)
}

/// Calls the body with a server at a Unix socket, which is shut down afterwards.
func withServer(
    limits: QMPServer.Limits = QMPServer.Limits(),
    _ body: (_ server: QMPServer, _ handler: ScriptedHandler, _ path: String) async throws -> Void
) async throws {
    try await withDirectory { directory in
        let handler = ScriptedHandler()
        let server = QMPServer(handler: handler, limits: limits)
        handler.attach(server)
        defer { handler.attach(nil) }
        let path = "\(directory)/a"
        let result: Result<Void, any Error>
        do {
            try await server.listen(on: .unix(path: path))
            try await body(server, handler, path)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await server.shutdown()
        try result.get()
    }
}

/// The number of this machine's sockets that are bound to this path or were accepted there.
func socketsBound(to path: String) -> Int {
    guard let file = fopen("/proc/net/unix", "r") else { return -1 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 1024)
    var count = 0
    while fgets(&line, CInt(line.count), file) != nil {
        let text = line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:))
        if String(decoding: text, as: UTF8.self).hasSuffix(" \(path)\n") { count += 1 }
    }
    return count
}
