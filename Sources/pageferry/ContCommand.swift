import ArgumentParser
import LinuxSystem
import Orchestration

/// Starts a workload that is stopped.
struct ContCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cont",
        abstract: "Let a workload run; returns when it does, or fails with the reason why it does not.",
        discussion: """
            At a destination it waits until the devices have loaded, and asks the source for another start if one was
            refused. Example:

              pageferry cont /run/b.sock
            """
    )

    @Argument(help: ArgumentHelp("The control socket of the agent.", valueName: "address"), transform: readAddress)
    var agent: SocketAddress

    func run() async throws {
        let agent = try await AgentClient(agent)
        try await agent.execute("cont")
        await agent.close()
    }
}
