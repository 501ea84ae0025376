import Foundation
public import LinuxSystem
public import QMP
public import Telemetry

/// One agent, seen from outside: a QMP client that knows an agent's commands.
public struct AgentClient: Sendable {
    private let client: QMPClient

    /// Connects to an agent's control socket.
    ///
    /// - Throws: what cannot be reached and why, in one line.
    public init(_ address: SocketAddress) async throws {
        client = try await QMPClient.connect(to: address)
    }

    /// Where the agent is controlled.
    public var address: SocketAddress { client.address }

    /// Carries out a command.
    ///
    /// - Throws: ``AgentFailure`` that names the agent, the command and the reason.
    @discardableResult
    public func execute(_ command: String, _ arguments: [String: JSONValue] = [:]) async throws -> JSONValue {
        do {
            return try await client.execute(command, arguments: arguments)
        } catch let error as QMPError {
            throw AgentFailure(agent: address, command: command, reason: error.description)
        }
    }

    /// What the agent knows of its migration.
    public func report() async throws -> AgentReport {
        let report: AgentReport = try await ask("pageferry-report")
        do throws(AgentReport.Contradiction) {
            try report.requireSound()
        } catch {
            throw AgentFailure(agent: address, command: "pageferry-report", reason: AgentClient.nonsense("\(error)"))
        }
        return report
    }

    /// What the agent knows of its migration, if it answers in time.
    public func report(within time: Duration) async throws -> AgentReport {
        try await withThrowingTaskGroup(of: AgentReport.self) { group in
            group.addTask { try await report() }
            group.addTask {
                try await Task.sleep(for: time)
                throw AgentFailure(
                    agent: address,
                    command: "pageferry-report",
                    reason: "the agent has not answered within \(time); see whether its process is stopped or busy"
                )
            }
            defer { group.cancelAll() }
            guard let report = try await group.next() else { throw CancellationError() }
            return report
        }
    }

    /// Checks every page of the workload; one that runs is stopped meanwhile.
    public func verify() async throws -> Report.Verify {
        try await ask("pageferry-verify")
    }

    /// Waits until the recovery that was asked for has ended.
    ///
    /// - Throws: ``AgentFailure`` with the reason why the migration is paused still.
    public func waitForRecovery() async throws {
        while true {
            let answer = try await execute("query-migrate")
            switch answer["status"]?.string {
            case "postcopy-recover-setup", "postcopy-recover":
                // There is an event for each state, but this agent may have passed it already.
                try await Task.sleep(for: .milliseconds(20))
            case "postcopy-paused", "failed":
                let reason = answer["error-desc"]?.string ?? "the link cannot be made"
                throw AgentFailure(agent: address, command: "recover", reason: reason)
            default:
                return
            }
        }
    }

    /// The address at which a destination waits for a source, or nil.
    public func listeningAddress() async throws -> String? {
        let answer = try await execute("query-migrate")
        guard let socket = answer["socket-address"]?[0], let host = socket["host"]?.string,
            let port = socket["port"]?.string
        else { return nil }
        return host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
    }

    /// What the agent tells unasked; ends with the connection.
    var events: AsyncStream<QMPEvent> { client.events }

    /// Ends the connection; the agent goes on.
    public func close() async {
        await client.close()
    }

    /// Asks for something that an agent of this release answers.
    private func ask<Value: Decodable>(_ command: String) async throws -> Value {
        let answer = try await execute(command)
        do {
            return try JSONDecoder().decode(Value.self, from: JSONEncoder().encode(answer))
        } catch let error as DecodingError {
            throw AgentFailure(agent: address, command: command, reason: AgentClient.nonsense(error.what))
        }
    }

    private static func nonsense(_ what: String) -> String {
        "its answer makes no sense: \(what); check that an agent of the same release runs there"
    }
}

/// A command that an agent could not carry out.
public struct AgentFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// Which agent.
    public let agent: SocketAddress
    /// Which command.
    public let command: String
    /// Why.
    public let reason: String

    /// One line.
    public var description: String { "\(command) at \(agent): \(reason)" }
}

extension DecodingError {
    /// What is wrong where, on one line.
    fileprivate var what: String {
        func place(_ path: [any CodingKey]) -> String { path.map(\.stringValue).joined(separator: ".") }
        return switch self {
        case .keyNotFound(let key, let context): "\(place(context.codingPath + [key])) is missing"
        case .valueNotFound(_, let context), .typeMismatch(_, let context), .dataCorrupted(let context):
            "\(place(context.codingPath)) is not what it should be"
        @unknown default: "\(self)"
        }
    }
}
