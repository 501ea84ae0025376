import Foundation
import LinuxSystem

/// What the near end of a benchmark asks of the far end, a JSON object a line.
struct BenchRequest: Codable {
    enum Step: String, Codable {
        /// Have memory; then two lanes come, each with a ``BenchOpening``.
        case serve
        /// Send all of the memory on the bulk lane.
        case push
        /// End the lanes.
        case end
        /// Say what it has cost so far.
        case usage
    }

    var step: Step
    var setup: BenchSetup?
}

/// What the far end has for one round.
struct BenchSetup: Codable, Hashable {
    enum Service: String, Codable {
        /// The least code that answers requests and sends memory.
        case bare
        /// The source agent.
        case agent
    }

    enum Content: String, Codable {
        /// Each page begins with its number plus 1, and goes on at random.
        case random
        case zeros
    }

    var service: Service
    var content = Content.random
    var pageCount: Int
    /// Pages that the bare service sends by one call.
    var chunk = 16
}

struct BenchAnswer: Codable {
    /// Why the request failed, or nil.
    var error: String?
    /// What the far end's process has used.
    var cpuNanoseconds: UInt64 = 0
}

/// The first line of each connection.
struct BenchOpening: Codable, Sendable {
    enum Role: String, Codable, Sendable {
        case control, urgent, bulk
    }

    var role: Role
    /// Tells the lanes of one client from those of another.
    var client: UInt64
}

/// Lines of JSON on a socket.
enum BenchLine {
    private static let limit = 1024

    static func send(_ value: some Encodable, on socket: borrowing StreamSocket) throws {
        try socket.send(Array(JSONEncoder().encode(value)) + [10])
    }

    /// Reads what has arrived of a connection's first line, and nothing behind it.
    ///
    /// - Parameter line: what came of it before.
    /// - Returns: nil until all of it is there.
    static func readOpening(from socket: borrowing StreamSocket, into line: inout [UInt8]) throws -> BenchOpening? {
        var byte: [UInt8] = [0]
        while line.count < limit {
            guard let received = try byte.withUnsafeMutableBytes({ try socket.receiveNow(into: $0) }) else {
                return nil
            }
            guard received == 1 else {
                throw BenchFailure("\(socket.peer) closed the connection before it said what it is")
            }
            if byte[0] == 10 { return try JSONDecoder().decode(BenchOpening.self, from: Data(line)) }
            line.append(byte[0])
        }
        throw BenchFailure("\(socket.peer) is no pageferry bench: it sent a line of more than \(limit) bytes")
    }

    /// Receives a line, or nil if the peer has closed the connection between two.
    ///
    /// - Parameter deadline: when all of it must have come, in nanoseconds of ``MonotonicClock``; nil waits for ever.
    static func receive<Value: Decodable>(
        _ type: Value.Type,
        from socket: borrowing StreamSocket,
        before deadline: UInt64? = nil
    ) throws -> Value? {
        var line: [UInt8] = []
        var byte: [UInt8] = [0]
        while line.count < limit {
            let received = try byte.withUnsafeMutableBytes { bytes in
                if let deadline { return try socket.receive(exactly: bytes, before: deadline) }
                return try socket.receive(exactly: bytes)
            }
            guard received == 1 else {
                guard line.isEmpty else { throw BenchFailure("\(socket.peer) closed the connection in mid-line") }
                return nil
            }
            if byte[0] == 10 { return try JSONDecoder().decode(type, from: Data(line)) }
            line.append(byte[0])
        }
        throw BenchFailure("\(socket.peer) is no pageferry bench: it sent a line of more than \(limit) bytes")
    }
}

/// A benchmark that cannot go on, with the reason for a person.
public struct BenchFailure: Error, CustomStringConvertible {
    /// One line.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}
