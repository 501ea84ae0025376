import ArgumentParser
import LinuxSystem
import Orchestration
import QMP

/// Takes a workload back whose migration is under way.
struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel",
        abstract: "Take a workload back, unless it has started at the destination.",
        discussion: """
            Returns when the workload runs at the source again, or fails with the reason: it runs at the destination, or
            that cannot be known before the link is made again (see recover). Example:

              pageferry cancel /run/a.sock
            """
    )

    @Argument(help: ArgumentHelp("The control socket of the source.", valueName: "address"), transform: readAddress)
    var source: SocketAddress

    @Flag(
        help: """
            Say that the destination is gone for good and that the workload has not executed there: the source takes it \
            back on your word. With a run lease, cancel asks the lease instead.
            """
    )
    var destinationIsGone = false

    @Flag(
        help:
            "Say that the destination is gone for good after the workload has executed there: the migration has failed."
    )
    var workloadIsLost = false

    func validate() throws {
        guard !(destinationIsGone && workloadIsLost) else {
            throw ValidationError("the workload has executed at the destination or it has not: give one of the two")
        }
    }

    func run() async throws {
        let agent = try await AgentClient(source)
        if destinationIsGone || workloadIsLost {
            try await agent.execute("pageferry-destination-gone", ["has-run": .boolean(workloadIsLost)])
        } else {
            try await agent.execute("migrate_cancel")
        }
        await agent.close()
    }
}
