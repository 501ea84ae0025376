import Foundation
import Synchronization
import TestProcess

/// Reads the lines that another process writes.
final class LineReader: Sendable {
    private let pipe: TestPipe
    private let unread = Mutex<[UInt8]>([])

    init(_ pipe: TestPipe) {
        self.pipe = pipe
    }

    /// Waits for the next whole line.
    func line(before deadline: Date) throws -> String {
        return try unread.withLock { unread in
            while true {
                if let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                    defer { unread.removeSubrange(...end) }
                    return String(decoding: unread[..<end], as: UTF8.self)
                }
                let milliseconds = max(0, deadline.timeIntervalSinceNow * 1000).rounded(.up)
                guard try read(into: &unread, milliseconds: Int32(milliseconds)) else {
                    throw RigFailure("not in time")
                }
            }
        }
    }

    /// Discards everything that has arrived.
    func discard() {
        unread.withLock { unread in
            while let more = try? read(into: &unread, milliseconds: 0), more {}
            unread = []
        }
    }

    /// The text that has arrived and was not returned as a line.
    func rest() -> String {
        unread.withLock { unread in
            while let more = try? read(into: &unread, milliseconds: 0), more {}
            return String(decoding: unread, as: UTF8.self)
        }
    }

    /// - Returns: false if nothing arrived in time.
    private func read(into unread: inout [UInt8], milliseconds: Int32) throws -> Bool {
        var arrival = pollfd(fd: pipe.reader, events: Int16(POLLIN), revents: 0)
        let ready = poll(&arrival, 1, milliseconds)
        if ready < 0, errno == EINTR { return true }
        guard ready > 0 else { return false }
        guard let piece = pipe.read() else { throw RigFailure("the process has ended") }
        unread += piece
        return true
    }
}
