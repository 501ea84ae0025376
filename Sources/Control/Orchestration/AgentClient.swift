import Foundation
import Identity
package import LinuxSystem
package import QMP
package import Telemetry

/// A QMP client of one agent.
package struct AgentClient: Sendable {
    private let client: QMPClient

    /// Connects to an agent's control socket.
    ///
    /// - Throws: an error that names the address and the reason in one line.
    package init(_ address: SocketAddress) async throws {
        client = try await QMPClient.connect(to: address)
    }

    /// The address of the agent's control socket.
    package var address: SocketAddress { client.address }

    /// Executes a QMP command, and returns the answer.
    ///
    /// - Throws: ``AgentFailure`` if the agent refuses the command, `QMPConnectionError` if the connection fails.
    @discardableResult
    package func execute(_ command: String, _ arguments: [String: JSONValue] = [:]) async throws -> JSONValue {
        do {
            return try await client.execute(command, arguments: arguments)
        } catch let error as QMPError {
            let reason = CommandWords.typed(error.description, at: address)
            throw AgentFailure(agent: address, command: command, reason: reason)
        }
    }

    /// Returns the agent's report on its migration.
    ///
    /// - Throws: ``AgentFailure`` if the report is invalid, and the errors of ``execute(_:_:)``.
    package func report() async throws -> AgentReport {
        try await report { report throws(AgentReport.Contradiction) in try report.requireSound() }
    }

    /// Returns the agent's report, for a caller that acts on the migration's state or waits for its end.
    func progress() async throws -> AgentReport {
        try await report { report throws(AgentReport.Contradiction) in
            try report.requireSound()
        }
    }

    private func report(
        _ check: (AgentReport) throws(AgentReport.Contradiction) -> Void
    ) async throws -> AgentReport {
        var report: AgentReport = try await ask("pageferry-report")
        report.error = report.error.map { CommandWords.typed($0, at: address) }
        do throws(AgentReport.Contradiction) {
            try check(report)
        } catch {
            throw AgentFailure(agent: address, command: "pageferry-report", reason: AgentClient.nonsense("\(error)"))
        }
        return report
    }

    /// Returns the agent's report; nil if the agent has exited.
    func progressUnlessEnded() async throws -> AgentReport? {
        do {
            return try await progress()
        } catch let error as QMPConnectionError where error.operation == .talk {
            // The connection ended, so the agent has exited.
            return nil
        }
    }

    /// Returns the agent's report if the agent answers in time.
    ///
    /// - Throws: ``AgentFailure`` if the agent has not answered within `time`, and the errors of ``report()``.
    package func report(within time: Duration) async throws -> AgentReport {
        try await withThrowingTaskGroup(of: AgentReport.self) { group in
            group.addTask { try await report() }
            group.addTask {
                try await Task.sleep(for: time)
                throw AgentFailure(
                    agent: address,
                    command: "pageferry-report",
                    reason: "the agent has not answered within \(time.text); check if its process is stopped or busy"
                )
            }
            defer { group.cancelAll() }
            guard let report = try await group.next() else { throw CancellationError() }
            return report
        }
    }

    /// Checks every page of the workload; a running workload is stopped meanwhile.
    ///
    /// - Throws: the errors of ``execute(_:_:)``, or ``AgentFailure`` if the answer is invalid.
    package func verify() async throws -> Report.Verify {
        try await ask("pageferry-verify")
    }

    /// Waits until a requested recovery has ended.
    ///
    /// - Throws: ``AgentFailure`` with the reason if the recovery has failed, and the errors of ``execute(_:_:)``.
    package func waitForRecovery() async throws {
        while true {
            let answer = try await execute("query-migrate")
            switch answer["status"]?.string.flatMap(MigrationState.init(rawValue:)) {
            case .postcopyRecoverSetup, .postcopyRecover, .cancelling:
                // Polls, since the event of the state that is awaited may have passed already.
                try await Task.sleep(for: .milliseconds(20))
            case .postcopyPaused, .failed, .cancelled:
                let said = answer["error-desc"]?.string ?? "the link cannot be made"
                let reason = CommandWords.typed(said, at: address)
                throw AgentFailure(agent: address, command: "recover", reason: reason)
            default:
                return
            }
        }
    }

    /// Returns the address at which a destination waits for a source; nil if it does not wait.
    ///
    /// - Throws: the errors of ``execute(_:_:)``.
    package func listeningAddress() async throws -> String? {
        let answer = try await execute("query-migrate")
        guard let socket = answer["socket-address"]?[0], let host = socket["host"]?.string,
            let port = socket["port"]?.string
        else { return nil }
        return host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
    }

    /// The events that the agent sends; the stream ends with the connection.
    var events: AsyncStream<QMPEvent> { client.events }

    /// Closes the connection; the agent continues.
    package func close() async {
        await client.close()
    }

    /// Executes a command, and decodes the answer as agents of this release encode it.
    private func ask<Value: Decodable>(_ command: String) async throws -> Value {
        let answer = try await execute(command)
        do {
            return try JSONDecoder().decode(Value.self, from: JSONEncoder().encode(answer))
        } catch let error as DecodingError {
            throw AgentFailure(agent: address, command: command, reason: AgentClient.nonsense(error.what))
        }
    }

    private static func nonsense(_ what: String) -> String {
        "its answer is invalid: \(what); check that an agent of the same release runs there"
    }
}

/// A command that an agent has refused, or could not carry out.
package struct AgentFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// The control socket of the agent.
    package let agent: SocketAddress
    /// The name of the command.
    package let command: String
    /// Why the command failed.
    package let reason: String

    package init(agent: SocketAddress, command: String, reason: String) {
        self.agent = agent
        self.command = command
        self.reason = reason
    }

    /// The command as a person types it, the agent and the reason, in one line.
    package var description: String { "\(CommandWords.sender(of: command)) at \(agent): \(reason)" }

    /// Returns the same failure with advice; unchanged if there is none.
    package func advising(_ advice: String?) -> AgentFailure {
        AgentFailure(agent: agent, command: command, reason: advice.map { "\(reason); \($0)" } ?? reason)
    }
}

extension DecodingError {
    /// The field that cannot be decoded, and the reason, in one line.
    fileprivate var what: String {
        func place(_ path: [any CodingKey]) -> String { path.map(\.stringValue).joined(separator: ".") }
        return switch self {
        case .keyNotFound(let key, let context): "\(place(context.codingPath + [key])) is missing"
        case .valueNotFound(_, let context), .typeMismatch(_, let context):
            "\(place(context.codingPath)) has a wrong type or no value"
        case .dataCorrupted(let context): "\(place(context.codingPath)): \(context.debugDescription)"
        @unknown default: "\(self)"
        }
    }
}
