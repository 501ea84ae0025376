import LinuxSystem
import Orchestration

/// The agent of a guest that `migrate` itself names: it is there for the one migration, which it sees through.
struct GuestAgent {
    /// Seconds for the last word to the destination.
    private static let patience = 3.0

    private let agent: ChildAgent
    let client: AgentClient

    /// Starts it.
    init(of guest: GuestOption) async throws {
        agent = try ChildAgent(
            "source",
            at: "/tmp/pageferry-\(UInt64.random(in: 0...UInt64.max)).sock",
            ["--guest", guest.description],
            seesMigrationThrough: true
        )
        client = try await agent.connect()
        Terminal.say("pageferry: the guest's agent is controlled at \(agent.address)")
    }

    /// Lets it go as soon as neither host needs it.
    func leave() {
        if !agent.leave(within: GuestAgent.patience) {
            Terminal.say(
                "pageferry: the guest's agent goes on as long as it is needed: pageferry status \(agent.address)"
            )
        }
    }
}
