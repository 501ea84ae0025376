import Foundation
import LinuxSystem

/// One agent of a round, with its control socket and log.
final class TortureAgent {
    /// The state of an agent as its answers show it.
    struct View: Equatable {
        var isAlive = false
        var state = ""
        var isRunning = false
        var hasReason = false
    }

    let name: String
    let host: String
    let socket: String
    let process: Spawned
    /// The instance id, once the agent has reported it.
    private(set) var instance = ""
    /// Whether the agent was told to exit, by `quit` or by a signal.
    var isLeaving = false
    var isStopped = false
    private var client: QMPLine?

    init(_ name: String, on host: String, in workspace: Workspace, _ arguments: [String]) throws {
        self.name = name
        self.host = host
        socket = workspace.file(name)
        process = try Spawned(
            ["/sbin/ip", "netns", "exec", host, Executable.pageferry] + arguments + ["--qmp", socket],
            log: "\(socket).log"
        )
    }

    var pid: pid_t { process.pid }
    var isAlive: Bool { process.isAlive }

    /// Sends a command and returns the answer, or nil if the agent is dead.
    func ask(_ command: String) throws -> String? {
        guard isAlive else { return nil }
        do {
            let client = try client ?? QMPLine(path: socket)
            self.client = client
            return try client.execute(command)
        } catch {
            client = nil
            // An agent that exits closes its sockets first.
            if process.wait(seconds: isLeaving ? 12 : 1) != nil { return nil }
            throw error
        }
    }

    /// Sends a command whose answer may come late or never.
    func tell(_ command: String) {
        Thread.detachNewThread { [socket] in _ = try? QMPLine(path: socket).execute(command) }
    }

    func view() throws -> View {
        guard let migration = try ask("query-migrate"), let status = try ask("query-status") else { return View() }
        return View(
            isAlive: true,
            state: (try? Printed(migration).value("return", "status")) ?? "none",
            isRunning: status.replacingOccurrences(of: ": ", with: ":").contains("\"running\":true"),
            hasReason: migration.contains("error-desc")
        )
    }

    /// Whether the agent answers, and its answer to `query-status` contains a word.
    func isReady(_ word: String) throws -> Bool {
        guard isAlive else { throw TestFailure("the \(name) has ended:\n\(process.text)") }
        guard access(socket, F_OK) == 0 else { return false }
        do {
            guard let status = try ask("query-status"), let report = try ask("pageferry-report") else { return false }
            instance = try Printed(report).value("return", "instance")
            return status.replacingOccurrences(of: ": ", with: ":").contains(word)
        } catch is SystemError {
            return false
        }
    }

    /// How many of how many pages have arrived at the agent; nil if it is not a destination.
    func arrival() throws -> (came: Int, total: Int)? {
        guard let answer = try ask("pageferry-report") else { return nil }
        guard let report: [String: Any] = try? Printed(answer).value("return", "destination") else { return nil }
        let pages = report["pages"] as? [String: NSNumber] ?? [:]
        let came = ["demand", "prefetched", "pushed", "zero"].reduce(0) { $0 + (pages[$1]?.intValue ?? 0) }
        return (came, pages["total"]?.intValue ?? 0)
    }

    func stop() {
        isStopped = true
        process.signal(SIGSTOP)
    }

    func goOn() {
        isStopped = false
        process.signal(SIGCONT)
    }

    func end() {
        client = nil
        process.end()
    }
}
