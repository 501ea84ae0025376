import LinuxSystem
import QMP
import Synchronization

/// The commands that are being carried out, which the exit of the agent answers.
///
/// A waiting command may wait for something that never happens once the agent is exiting.
final class WaitingCommands: Sendable {
    private struct Waiting {
        var number: UInt64 = 0
        var hasEnded = false
        var continuations: [UInt64: CheckedContinuation<JSONValue, any Error>] = [:]
    }

    private static let refusal = CommandRefused(reason: "this agent is exiting")
    private let state = Mutex(Waiting())

    /// Carries out a command and returns its result, or throws earlier if the agent exits.
    ///
    /// - Parameter command: the command's work, which continues after the agent's exit has answered the command.
    /// - Throws: what `command` throws, or ``CommandRefused`` once the agent is exiting.
    func answer(_ command: @escaping @Sendable () async throws -> JSONValue) async throws -> JSONValue {
        try await withCheckedThrowingContinuation { continuation in
            let number = state.withLock { state -> UInt64? in
                guard !state.hasEnded else { return nil }
                state.number += 1
                state.continuations[state.number] = continuation
                return state.number
            }
            guard let number else { return continuation.resume(throwing: WaitingCommands.refusal) }
            Task {
                let result: Result<JSONValue, any Error>
                do {
                    result = .success(try await command())
                } catch {
                    result = .failure(error)
                }
                let waiting = state.withLock { $0.continuations.removeValue(forKey: number) }
                waiting?.resume(with: result)
            }
        }
    }

    /// Waits until no command is under way, then fails the ones that still are, and each later one.
    ///
    /// A command's own work may be what lets the agent exit, and the command then ends a moment later.
    ///
    /// - Parameter limit: the longest wait.
    func end(within limit: Duration) async {
        state.withLock { $0.hasEnded = true }
        let begin = MonotonicClock.now()
        while MonotonicClock.time(since: begin) < limit, state.withLock({ !$0.continuations.isEmpty }) {
            await rest(for: .milliseconds(5))
        }
        let waiting = state.withLock { state in
            defer { state.continuations = [:] }
            return state.continuations.values.map(\.self)
        }
        for continuation in waiting { continuation.resume(throwing: WaitingCommands.refusal) }
    }
}
