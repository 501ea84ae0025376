import Foundation
import Synchronization
import TestProcess

/// Lines that another process writes, read by who waits for them.
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

    /// Forgets what has come.
    func discard() {
        unread.withLock { unread in
            while let more = try? read(into: &unread, milliseconds: 0), more {}
            unread = []
        }
    }

    /// What has come and was not taken as a line.
    func rest() -> String {
        unread.withLock { unread in
            while let more = try? read(into: &unread, milliseconds: 0), more {}
            return String(decoding: unread, as: UTF8.self)
        }
    }

    /// - Returns: false when nothing came in time.
    private func read(into unread: inout [UInt8], milliseconds: Int32) throws -> Bool {
        var arrival = pollfd(fd: pipe.reader, events: Int16(POLLIN), revents: 0)
        let ready = poll(&arrival, 1, milliseconds)
        if ready < 0, errno == EINTR { return true }
        guard ready > 0 else { return false }
        guard let piece = pipe.read() else { throw RigFailure("it has ended") }
        unread += piece
        return true
    }
}
