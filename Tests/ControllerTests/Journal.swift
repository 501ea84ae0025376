import Synchronization

/// The events on both hosts in order, and whether the workload ever ran on both hosts at once.
final class Journal: Sendable {
    private struct Content {
        var lines: [String] = []
        var running: Set<String> = []
        var ranTwice = false
    }

    private let content = Mutex(Content())

    var lines: [String] { content.withLock(\.lines) }
    /// Whether two hosts ran the workload at the same time.
    var ranTwice: Bool { content.withLock(\.ranTwice) }
    var running: Set<String> { content.withLock(\.running) }

    func note(_ line: String) { content.withLock { $0.lines.append(line) } }

    func begin(_ host: String) {
        content.withLock {
            $0.lines.append("\(host) run")
            if !$0.running.isEmpty { $0.ranTwice = true }
            $0.running.insert(host)
        }
    }

    func end(_ host: String) {
        content.withLock {
            $0.lines.append("\(host) stop")
            $0.running.remove(host)
        }
    }

    /// The index of a line; nil if the line was never noted.
    func index(of line: String) -> Int? { lines.firstIndex(of: line) }
}
