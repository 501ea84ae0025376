import LinuxSystem
import Orchestration

/// The agent that `migrate --guest` starts for one migration.
///
/// The agent outlives this process if the migration still needs it.
struct GuestAgent {
    /// How long ``leave()`` waits for the agent's exit, in milliseconds.
    ///
    /// The agent exits after its last message to the destination.
    private static let patience = 3000

    private let agent: ChildAgent
    let client: AgentClient

    /// Starts the agent, connects to it, and prints its control socket.
    init(of guest: GuestOption) async throws {
        var source = try SourceCommand.withDefaults()
        source.guest = guest
        agent = try ChildAgent(
            source,
            at: "/tmp/pageferry-\(UInt64.random(in: 0...UInt64.max)).sock",
            seesMigrationThrough: true
        )
        client = try await agent.connect()
        Terminal.say("pageferry: the control socket of the guest's agent is \(agent.address)")
    }

    /// Tells the agent to exit as soon as neither host needs it.
    func leave() {
        if !agent.leave(withinMilliseconds: GuestAgent.patience) {
            Terminal.say(
                "pageferry: the guest's agent runs until it is no longer needed: pageferry status \(agent.address)"
            )
        }
    }
}
