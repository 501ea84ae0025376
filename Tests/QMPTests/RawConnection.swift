import Dispatch
import Glibc

@testable import QMP

/// A plain socket to a QMP server, whose calls block on a queue of their own for at most ten seconds.
actor RawConnection {
    struct Failure: Error {
        let call: String
        let code = errno
    }

    /// An executor that keeps blocking calls away from the threads on which the rest of a test runs.
    private final class BlockingExecutor: SerialExecutor {
        private let queue = DispatchQueue(label: "raw connection")

        func enqueue(_ job: consuming ExecutorJob) {
            let job = UnownedJob(job)
            queue.async { job.runSynchronously(on: self.asUnownedSerialExecutor()) }
        }
    }

    nonisolated private let executor = BlockingExecutor()
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let descriptor: CInt
    private var received: [UInt8] = []

    init(path: String) throws {
        descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard status == 0 else { throw Failure(call: "connect") }
    }

    deinit {
        close(descriptor)
    }

    /// Connects, reads the greeting and negotiates.
    static func negotiated(path: String, enable: String = "") async throws -> RawConnection {
        let connection = try RawConnection(path: path)
        _ = try await connection.line()
        try await connection.send(#"{"execute":"qmp_capabilities","arguments":{"enable":[\#(enable)]}}"#)
        _ = try await connection.line()
        return connection
    }

    /// Sends the whole text, or fails once the server has closed the connection.
    func send(_ text: String) throws {
        try send(bytes: Array(text.utf8))
    }

    func send(bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Failure(call: "send") }
            sent += count
        }
    }

    /// The next line without its CRLF; nil if the server has closed the connection.
    func line() throws -> String? {
        while true {
            if let end = received.firstIndex(of: UInt8(ascii: "\n")) {
                let line = received[..<end]
                received.removeSubrange(...end)
                guard line.last == UInt8(ascii: "\r") else { throw Failure(call: "line") }
                return String(decoding: line.dropLast(), as: UTF8.self)
            }
            var chunk = [UInt8](repeating: 0, count: 65536)
            let count = recv(descriptor, &chunk, chunk.count, 0)
            // A server that closes with input unread resets the connection.
            if count == 0 || (count < 0 && errno == ECONNRESET) { return nil }
            guard count > 0 else { throw Failure(call: "recv") }
            received += chunk[..<count]
        }
    }

    /// The next message; nil if the server has closed the connection.
    func message() throws -> JSONValue? {
        try line().map { try JSONReader.read(Array($0.utf8)) }
    }

    /// Sends a text and returns the next message.
    func exchange(_ text: String) throws -> JSONValue? {
        try send(text)
        return try message()
    }

    /// Ends both directions at once, as closing does.
    func disconnect() {
        Glibc.shutdown(descriptor, CInt(SHUT_RDWR))
    }

    /// Closes the sending direction.
    func finishSending() {
        Glibc.shutdown(descriptor, CInt(SHUT_WR))
    }
}
