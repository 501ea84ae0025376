import ArgumentParser
import Foundation
import LinuxSystem
import Orchestration
import QMP

/// Makes a new link for a paused migration.
struct RecoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Make a new link for a paused migration, over any network.",
        discussion: """
            The command returns when pages move again. After a link breaks, the source redials by itself for \
            --recover-for. Use this command after that time, or to use another address.

            Example:

              pageferry recover --source /run/a.sock --destination /run/b.sock \\
                --uri tcp:10.1.0.2:7000
            """
    )

    @Option(help: ArgumentHelp("The control socket of the source.", valueName: "address"), transform: readControl)
    var source: SocketAddress

    @Option(
        help: ArgumentHelp(
            "The control socket of the destination, to make it listen at the address of --uri.",
            valueName: "address"
        ),
        transform: readControl
    )
    var destination: SocketAddress?

    @Option(
        help: ArgumentHelp(
            "The address at which the source reaches the destination; with --destination, port 0 means any free port.",
            valueName: "tcp:host:port"
        ),
        transform: readAddress
    )
    var uri: SocketAddress

    @OptionGroup var quietOption: QuietOption

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        guard source != destination else {
            throw ValidationError("\(source) is named as source and as destination; name two agents")
        }
        try requireDialable(uri)
        if destination == nil { try requirePort(uri) }
    }

    func run() async throws {
        quietOption.apply()
        let agent = try await AgentClient(source)
        var uri = uri.description
        if let destination {
            let other = try await AgentClient(destination)
            do {
                try await other.execute("migrate-recover", ["uri": .string(uri)])
            } catch let refusal as AgentFailure {
                let here = try await agent.report()
                throw await Advice.added(to: refusal, of: other) { address, there in
                    Advice.onRecover(from: (agent.address, here), to: (address, there))
                }
            }
            if uri.hasSuffix(":0"), let address = try await other.listeningAddress() { uri = address }
            await other.close()
        }
        do {
            try await agent.execute("migrate", ["uri": .string(uri), "resume": true])
        } catch let refusal as AgentFailure {
            let named = AgentFailure(agent: refusal.agent, command: "recover", reason: refusal.reason)
            throw await Advice.added(to: named, of: agent, Advice.onRecover)
        }
        let follow = "pageferry status \(agent.address)"
        try await LongWait.tell(
            "recover waits until pages move again: \(follow)",
            interrupted: "the agents continue to make the new link: follow it with \(follow)"
        ) {
            do {
                try await agent.waitForRecovery()
            } catch let failure as AgentFailure {
                throw await Advice.added(to: failure, of: agent, Advice.onLostRecovery)
            }
        }
        await agent.close()
    }
}
