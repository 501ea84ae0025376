import Glibc
import LinuxSystem
import Synchronization

/// A socket that two threads of a test share.
final class Held: Sendable {
    let socket: StreamSocket
    init(_ socket: consuming StreamSocket) { self.socket = socket }
}

/// A listener that two threads of a test share.
final class SharedListener: Sendable {
    let listener: Listener
    init(_ address: SocketAddress, _ access: SocketAccess = .ownUser) throws {
        listener = try Listener(at: address, access)
    }
}

/// A flag that two threads of a test share.
final class SharedFlag: Sendable {
    let flag: EventDescriptor
    init() throws { flag = try EventDescriptor() }
}

/// The error of a test that cannot prepare what it needs.
struct CannotPrepare: Error {
    let what: String
}

/// The two ends of one connection.
enum SocketPair {
    static func tcp() throws -> (Held, Held) {
        try connect(.tcp(host: "127.0.0.1", port: 0))
    }

    static func unix() throws -> (Held, Held) {
        try withSocketPath { try connect(.unix(path: $0)) }
    }

    private static func connect(_ address: SocketAddress) throws -> (Held, Held) {
        let listener = try Listener(at: address)
        let one = try StreamSocket(connectingTo: listener.address)
        return (Held(one), try accept(from: listener))
    }

    /// The next connection to a listener.
    static func accept(from listener: borrowing Listener) throws -> Held {
        guard let socket = try listener.accept() else { throw CannotPrepare(what: "a connection") }
        return Held(socket)
    }
}

/// The bytes that a thread has received.
final class Received: Sendable {
    private let content = Mutex<[UInt8]>([])

    var bytes: [UInt8] { content.withLock(\.self) }

    /// Receives up to `count` bytes; after a failure, keeps the bytes that came before it.
    func take(_ count: Int, from socket: borrowing StreamSocket) {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = (try? bytes.withUnsafeMutableBytes { try socket.receive(exactly: $0) }) ?? 0
        let taken = bytes.prefix(received)
        content.withLock { $0 += taken }
    }
}

/// Calls the body with a path for a socket, in a directory that is removed afterwards.
func withSocketPath<Result>(_ body: (String) throws -> Result) throws -> Result {
    var template = Array("/tmp/linux-tests-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw CannotPrepare(what: "a directory") }
    let directory = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    defer {
        unlink("\(directory)/socket")
        rmdir(directory)
    }
    return try body("\(directory)/socket")
}
