import ArgumentParser
import Dispatch
import LinuxSystem
import Logging
import Orchestration
import Outside

/// An agent in a process of its own.
final class ChildAgent: Sendable {
    /// How long an agent may take to exit after it was told to, in milliseconds.
    private static let quitTimeout = 10_000

    private let name: String
    private let process: CompanionProcess
    let address: SocketAddress

    /// Starts a command with the options that it has here.
    ///
    /// - Parameters:
    ///   - command: `source` or `destination`.
    ///   - socket: the path of the agent's control socket, instead of the one that the command has.
    ///   - seesMigrationThrough: whether the agent outlives this process for a migration that is under way. Otherwise
    ///     the agent exits when this process does, however this process exits.
    init<Command: AgentProgram>(
        _ command: Command,
        at socket: String,
        seesMigrationThrough: Bool = false
    ) throws {
        name = Command._commandName
        address = .unix(path: socket)
        var command = command
        command.agentOptions.qmp = []
        command.agentOptions.service.logLevel = .warning
        command.agentOptions.leaveWithInput = seesMigrationThrough
        command.agentOptions.endWithInput = !seesMigrationThrough
        process = try CompanionProcess(
            [ChildAgentCommand._commandName, name, "--qmp", socket, PassedOptions.json(command)]
        )
    }

    /// Waits until the agent is ready, and connects to it.
    ///
    /// - Throws: `ExitCode` if the agent exited instead, after it has logged why. ``Failure`` if the agent was killed.
    ///   `CancellationError` if the task was cancelled; the agent is then told to exit.
    func connect() async throws -> AgentClient {
        let isReady = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Bool, Never>) in
                DispatchQueue.global().async { [process] in
                    continuation.resume(returning: process.readLine() != nil)
                }
            }
        } onCancel: {
            // Before the agent is ready, it has nothing to lose, and does not read its standard input. Its exit ends
            // the wait for its line.
            process.terminate()
        }
        try Task.checkCancellation()
        guard isReady else {
            // An agent that exits by itself has logged why.
            guard case .killed(let signal) = process.waitForEnd() else { throw ExitCode(1) }
            throw Failure("the \(name) agent was killed by signal \(signal) before it was ready; see the kernel's log")
        }
        return try await AgentClient(address)
    }

    /// Reads how much memory the agent holds beside the workload's, in bytes.
    ///
    /// A page that n processes share counts 1/n. Mappings of at least `size` bytes are left out: the workload's.
    func memory(withoutMappingsOf size: Int) throws -> Int {
        guard let maps = ProcessFile.text("/proc/\(process.id)/smaps") else {
            throw Failure("the \(name) agent has exited")
        }
        var total: Untrusted<Int> = 0
        var isWorkload = false
        for line in maps.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 3, let kibibytes = Int(words[1]) else { continue }
            if words[0] == "Size:" { isWorkload = kibibytes << 10 >= size }
            if words[0] == "Pss:", !isWorkload { total += Untrusted(kibibytes) * 1024 }
        }
        return total.clamped(to: 0...Int.max)
    }

    /// Tells the agent to exit, and waits for its exit; kills an agent that takes too long.
    func end() {
        if leave(withinMilliseconds: ChildAgent.quitTimeout) { return }
        process.kill()
        process.waitForEnd()
    }

    /// Tells the agent to exit as soon as nothing needs it, by the end of its standard input.
    ///
    /// - Returns: whether the agent has exited in time.
    func leave(withinMilliseconds milliseconds: Int) -> Bool {
        process.closeInput()
        return process.wait(milliseconds: milliseconds)
    }
}
