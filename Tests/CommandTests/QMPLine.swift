import Foundation
import LinuxSystem

/// A minimal QMP client: sends one line, reads one line, and skips events.
final class QMPLine {
    private let socket: StreamSocket
    private var buffered: [UInt8] = []

    /// Connects, reads the greeting and negotiates.
    convenience init(path: String) throws {
        try self.init(greetedAt: path)
        _ = try execute("qmp_capabilities")
    }

    /// Connects and reads the greeting.
    init(greetedAt path: String) throws {
        socket = try StreamSocket(connectingTo: .unix(path: path))
        try socket.setReceiveTimeout(seconds: 30)
        guard try readLine().contains("\"QMP\"") else { throw TestFailure("no QMP greeting at \(path)") }
    }

    /// Sends a command, given by its name or as a JSON object, and returns the answer.
    func execute(_ command: String) throws -> String {
        let text = command.hasPrefix("{") ? command : "{\"execute\":\"\(command)\"}"
        try send(Array("\(text)\r\n".utf8))
        return try answer()
    }

    /// Sends arbitrary bytes.
    func send(_ bytes: [UInt8]) throws {
        try socket.send(bytes)
    }

    /// The next message that is not an event.
    func answer() throws -> String {
        while true {
            let line = try readLine()
            if !line.contains("\"event\"") { return line }
        }
    }

    private func readLine() throws -> String {
        while true {
            if let end = buffered.firstIndex(of: 10) {
                defer { buffered.removeSubrange(...end) }
                return String(decoding: buffered[..<end], as: UTF8.self)
            }
            var piece = [UInt8](repeating: 0, count: 4096)
            let count = try piece.withUnsafeMutableBytes { try socket.receive(into: $0) }
            guard count > 0 else { throw TestFailure("the agent closed its control socket") }
            buffered += piece[..<count]
        }
    }
}
