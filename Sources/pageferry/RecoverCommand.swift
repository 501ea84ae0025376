import ArgumentParser
import Foundation
import LinuxSystem
import Orchestration
import QMP

/// Makes a new link for a migration whose link broke.
struct RecoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Make a new link for a migration that is paused, over any network.",
        discussion: """
            Returns when pages move again. Agents look for each other by themselves for a while; this is for a link that
            broke longer ago, or for another address. Example:

              pageferry recover --source /run/a.sock --destination /run/b.sock --uri tcp:10.1.0.2:7000
            """
    )

    @Option(help: ArgumentHelp("The control socket of the source.", valueName: "address"), transform: readAddress)
    var source: SocketAddress

    @Option(
        help: ArgumentHelp(
            "The control socket of the destination, which is to listen at a new address.",
            valueName: "address"
        ),
        transform: readAddress
    )
    var destination: SocketAddress?

    @Option(
        help: ArgumentHelp(
            "Where the source is to find the destination; with --destination, port 0 is any that is free there.",
            valueName: "tcp:host:port"
        )
    )
    var uri: String

    func run() async throws {
        let agent = try await AgentClient(source)
        var uri = uri
        if let destination {
            let other = try await AgentClient(destination)
            try await other.execute("migrate-recover", ["uri": .string(uri)])
            if uri.hasSuffix(":0"), let address = try await other.listeningAddress() { uri = address }
            await other.close()
        }
        try await agent.execute("migrate", ["uri": .string(uri), "resume": true])
        try await agent.waitForRecovery()
        await agent.close()
    }
}
