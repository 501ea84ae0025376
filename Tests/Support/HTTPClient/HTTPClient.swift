package import LinuxSystem
import SystemPackage

/// A connection on which a test speaks HTTP, byte by byte if it wants.
package final class HTTPClient: Sendable {
    private let socket: SharedSocket
    private let input = Input()

    /// The bytes that have arrived and were not read yet.
    ///
    /// `@unchecked Sendable`: a client belongs to one test, which reads from one thread at a time.
    private final class Input: @unchecked Sendable {
        var bytes: [UInt8] = []
        var place = 0
    }

    /// An answer.
    package struct Reply: Sendable, CustomStringConvertible {
        package let status: Int
        /// The fields, by their names in lower case.
        package let fields: [String: String]
        package let body: String
        package var description: String { "\(status) \(fields)\n\(body)" }
    }

    /// Connects to a server.
    ///
    /// - Parameters:
    ///   - address: where the server listens.
    ///   - seconds: the longest wait for bytes.
    package init(_ address: SocketAddress, seconds: Int = 20) throws {
        socket = SharedSocket(try StreamSocket(connectingTo: address))
        try socket.stream.setReceiveTimeout(seconds: seconds)
    }

    /// Sends bytes as they are.
    package func send(_ text: String) throws { try socket.stream.send(Array(text.utf8)) }

    /// Ends the connection.
    package func close() { socket.stream.shutdown() }

    /// Sends a request and reads its answer.
    package func request(
        _ method: String = "GET",
        _ path: String,
        host: String? = "localhost",
        fields: [String: String] = [:],
        body: String? = nil
    ) throws -> Reply? {
        var text = "\(method) \(path) HTTP/1.1\r\n"
        if let host { text += "Host: \(host)\r\n" }
        for (name, value) in fields { text += "\(name): \(value)\r\n" }
        if let body { text += "Content-Length: \(body.utf8.count)\r\n" }
        try send(text + "\r\n" + (body ?? ""))
        return try reply(hasBody: method != "HEAD")
    }

    /// Sends one request over a connection of its own.
    package static func request(
        _ method: String = "GET",
        _ path: String,
        at address: SocketAddress,
        host: String? = "localhost",
        fields: [String: String] = [:],
        body: String? = nil
    ) throws -> Reply? {
        let client = try HTTPClient(address)
        defer { client.close() }
        return try client.request(method, path, host: host, fields: fields, body: body)
    }

    /// Reads an answer; nil if the server has closed the connection instead.
    package func reply(hasBody: Bool = true) throws -> Reply? {
        guard let (status, fields) = try head() else { return nil }
        guard hasBody, let length = fields["content-length"].flatMap({ Int($0) }) else {
            return Reply(status: status, fields: fields, body: "")
        }
        return Reply(status: status, fields: fields, body: String(decoding: try bytes(length), as: UTF8.self))
    }

    /// Reads the head of an answer; nil if the server has closed the connection instead.
    package func head() throws -> (status: Int, fields: [String: String])? {
        guard let first = try line() else { return nil }
        let words = first.split(separator: " ")
        guard words.count >= 2, let status = Int(words[1]) else { return nil }
        var fields: [String: String] = [:]
        while let line = try line(), !line.isEmpty {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            fields[line[..<colon].lowercased()] = String(value)
        }
        return (status, fields)
    }

    /// Reads the next server-sent event of an answer in chunks; nil if the stream has ended.
    ///
    /// A comment is an event named `comment`.
    package func event() throws -> (name: String, id: String, data: String)? {
        var text = ""
        while !text.hasSuffix("\n\n") {
            guard let size = try line().flatMap({ Int($0, radix: 16) }), size > 0 else { return nil }
            text += String(decoding: try bytes(size), as: UTF8.self)
            _ = try line()
        }
        var (name, id, data) = ("", "", "")
        for line in text.split(separator: "\n") {
            if line.hasPrefix("event: ") { name = String(line.dropFirst(7)) }
            if line.hasPrefix("id: ") { id = String(line.dropFirst(4)) }
            if line.hasPrefix("data: ") { data = String(line.dropFirst(6)) }
            if line.hasPrefix(":") { name = "comment" }
        }
        return (name, id, data)
    }

    /// Whether the server closes the connection, after perhaps more bytes.
    package func isClosed() throws -> Bool {
        do throws(SystemError) {
            while try fill() {}
            return true
        } catch {
            // A reset is an end too; a timeout is none.
            return error.errno != .timedOut
        }
    }

    private func fill() throws(SystemError) -> Bool {
        if input.place > 0 {
            input.bytes.removeFirst(input.place)
            input.place = 0
        }
        let end = input.bytes.count
        input.bytes.append(contentsOf: [UInt8](repeating: 0, count: 65536))
        var received = 0
        var failure: SystemError?
        input.bytes.withUnsafeMutableBytes { bytes in
            do throws(SystemError) {
                received = try socket.stream.receive(into: UnsafeMutableRawBufferPointer(rebasing: bytes[end...]))
            } catch {
                failure = error
            }
        }
        input.bytes.removeLast(input.bytes.count - end - received)
        if let failure { throw failure }
        return received > 0
    }

    private func line() throws -> String? {
        while true {
            if let end = input.bytes[input.place...].firstIndex(of: 0x0a) {
                let line = input.bytes[input.place..<end]
                input.place = end + 1
                return String(decoding: line.last == 0x0d ? line.dropLast() : line, as: UTF8.self)
            }
            guard try fill() else { return nil }
        }
    }

    private func bytes(_ count: Int) throws -> [UInt8] {
        while input.bytes.count - input.place < count, try fill() {}
        let end = min(input.bytes.count, input.place + count)
        defer { input.place = end }
        return Array(input.bytes[input.place..<end])
    }
}
