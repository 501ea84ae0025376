import ArgumentParser
import Controller
import Guest
import KVMGuest
import MicroVMGuest
import Workloads

/// Runs a workload that can be moved away.
struct SourceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "source",
        abstract: "Run a workload that can be moved away.",
        discussion: """
            The workload runs at once; a microVM of Firecracker runs already. Examples:

              pageferry source --qmp /run/a.sock --workload zipf --memory 1GiB --threads 2
              pageferry source --qmp /run/a.sock --guest firecracker:/run/vm.sock
            """
    )

    @OptionGroup var agentOptions: AgentOptions
    @Option(
        help: ArgumentHelp(
            "Instead of a workload of its own: a microVM of Firecracker that runs.",
            valueName: "firecracker:api-socket"
        ),
        transform: readGuest
    )
    var guest: GuestOption?

    @OptionGroup var workloadOptions: WorkloadOptions
    @OptionGroup var serialOption: SerialOption
    @OptionGroup var pushOptions: PushOptions
    @OptionGroup var arrivalOptions: ArrivalOptions

    @Option(
        help: ArgumentHelp(
            "What to do when the destination cannot start the workload: resume it here, or wait for another cont there.",
            valueName: "resume|wait"
        )
    )
    var onStartFailure = StartFailureOption.resume

    func validate() throws {
        if guest != nil, try workloadOptions.arguments != WorkloadOptions.parse([]).arguments {
            throw ValidationError("--guest names what moves; it goes with no option of a workload")
        }
        try serialOption.validate(for: workloadOptions.workload)
    }

    func run() async throws {
        agentOptions.watchInput()
        let logger = agentOptions.service.logger("source")
        let witness = try agentOptions.makeWitness()
        let serial = try serialOption.open()
        let workload: any Workload =
            if let guest {
                try MicroVM(runningAt: guest.socketPath, logger: logger)
            } else {
                try workloadOptions.makeWorkload(witness: witness, serial: serial)
            }
        var configuration = try agentOptions.configuration()
        pushOptions.fill(&configuration)
        configuration.afterStartRefusal = onStartFailure.policy
        configuration.arrivalRefusal =
            "an agent of `source --guest` takes no workload; start `pageferry destination --guest firecracker:API-SOCKET`, "
            + "with a Firecracker that boots nothing"
        let landing = HostLanding(
            builtIn: try arrivalOptions.landing(witness: witness),
            kvm: KVMLanding(output: serial)
        )
        let agent = Agent(
            workload: (workload, workload.ownMemory ?? []),
            landing: guest == nil ? landing : nil,
            configuration: configuration,
            logger: logger
        )
        try await agentOptions.run(agent, logger: logger) {
            try await agent.startWorkload()
            return "\(workload.description.name) runs, controlled at \(agentOptions.qmp[0])"
        }
    }
}
