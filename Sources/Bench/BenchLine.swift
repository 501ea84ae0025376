import Compression
import Foundation
import LinuxSystem

/// A request of the near end to the far end, one JSON object per line.
struct BenchRequest: Codable {
    enum Step: String, Codable {
        /// Prepare the memory. The near end then connects the lanes, each with a ``BenchOpening``.
        case serve
        /// Send all of the memory on the bulk lanes.
        case push
        /// Close the lanes.
        case end
        /// Report the processor time used so far.
        case usage
        /// Allocate and fill private memory, and report its address.
        case hold
    }

    var step: Step
    var setup: BenchSetup?
}

/// What the far end prepares for one round.
struct BenchSetup: Codable, Hashable {
    enum Service: String, Codable {
        /// The least code that answers requests and pushes memory.
        case bare
        /// The source agent of a migration.
        case agent
    }

    enum Content: String, Codable {
        /// Each page begins with its number plus 1; its other bytes are random.
        case random
        case zeros
        /// Each page begins with its number plus 1, and goes on with lines of words, some of which are frequent.
        case text
        /// Each page begins with its number plus 1, and goes on with words of 64 bits: addresses, small numbers, and zeros.
        case binary
    }

    enum Memory: String, Codable {
        /// Memory that is mapped in the far end's process.
        case own
        /// A memory file that is read as one that another process fills.
        case file
        /// Private memory of another process.
        case process
    }

    var service: Service
    var content = Content.random
    var memory = Memory.own
    var pageCount: Int
    /// The number of bulk lanes.
    var lanes = 1
    /// How the agent compresses pushed pages.
    var compression = PushCompression.none
    /// Pages that the bare service sends with one call.
    var chunk = 16
    /// How the threads of both ends wait for a fault, a request or a page.
    var waiting = Waiting.sleeping

    enum Waiting: String, Codable {
        /// The threads sleep at once.
        case sleeping
        /// The agents poll first, for the usual time, and then sleep. The bare code polls until something comes.
        case polling

        /// The longest time that the agents poll.
        var polling: Duration {
            switch self {
            case .sleeping: .zero
            case .polling: PollBudget.usualLimit
            }
        }
    }
}

struct BenchAnswer: Codable {
    /// Why the request failed; nil if it succeeded.
    var error: String?
    /// Processor time that the far end's process has used, in nanoseconds.
    var cpuNanoseconds: UInt64 = 0
    /// Where the memory that ``BenchRequest/Step/hold`` asked for begins.
    var address: UInt64?
}

/// The first line on each connection.
struct BenchOpening: Codable, Sendable {
    enum Role: String, Codable, Sendable {
        case control, urgent, bulk
    }

    var role: Role
    /// A random number that distinguishes the lanes of one client from those of another.
    var client: UInt64
    /// The number of a bulk lane, from 0; nil on other connections.
    var lane: Int?
}

/// Lines of JSON on a socket.
enum BenchLine {
    private static let limit = 1024

    static func send(_ value: some Encodable, on socket: borrowing StreamSocket) throws {
        try socket.send(Array(JSONEncoder().encode(value)) + [10])
    }

    /// Reads what has arrived of a connection's first line, and nothing behind it.
    ///
    /// - Parameter line: the bytes of the line so far; what is read is appended.
    /// - Returns: nil until the line is complete.
    static func readOpening(from socket: borrowing StreamSocket, into line: inout [UInt8]) throws -> BenchOpening? {
        var byte: [UInt8] = [0]
        while line.count < limit {
            guard let received = try byte.withUnsafeMutableBytes({ try socket.receiveNow(into: $0) }) else {
                return nil
            }
            guard received == 1 else {
                throw BenchFailure("\(socket.peer) closed the connection before its first line was complete")
            }
            if byte[0] == 10 { return try JSONDecoder().decode(BenchOpening.self, from: Data(line)) }
            line.append(byte[0])
        }
        throw BenchFailure("\(socket.peer) is not a pageferry bench: it sent a line of more than \(limit) bytes")
    }

    /// Receives a line; nil if the peer has closed the connection between two lines.
    ///
    /// - Parameter deadline: when the whole line must have arrived, in nanoseconds of ``MonotonicClock``; nil waits
    ///   without limit.
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
                guard line.isEmpty else { throw BenchFailure("\(socket.peer) closed the connection within a line") }
                return nil
            }
            if byte[0] == 10 { return try JSONDecoder().decode(type, from: Data(line)) }
            line.append(byte[0])
        }
        throw BenchFailure("\(socket.peer) is not a pageferry bench: it sent a line of more than \(limit) bytes")
    }
}

/// The reason why a benchmark cannot continue, for people to read.
package struct BenchFailure: Error, CustomStringConvertible {
    /// The reason, in one line.
    package let description: String

    init(_ description: String) {
        self.description = description
    }
}
