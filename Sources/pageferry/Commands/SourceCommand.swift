import ArgumentParser
import Attachments
import Controller
import Guest
import KVMGuest
import Logging
import MicroVMGuest
import Switchover
import Workloads

/// Runs a workload that can move to another host.
struct SourceCommand: AgentProgram {
    static let configuration = CommandConfiguration(
        commandName: "source",
        abstract: "Run a workload that can move to another host.",
        discussion: """
            The workload starts at once. With --guest, it is a Firecracker microVM that already runs. With --attach, it \
            is a process of your own.

            Examples:

              pageferry source --qmp /run/a.sock --workload zipf --memory 1GiB --threads 2
              pageferry source --qmp /run/a.sock --guest firecracker:/run/vm.sock
              pageferry source --qmp /run/a.sock --attach /run/attach.sock
            """
    )

    @OptionGroup var agentOptions: AgentOptions
    @Option(
        help: ArgumentHelp(
            "Instead of --workload: the API socket of a Firecracker microVM that runs on this host.",
            valueName: "firecracker:api-socket"
        ),
        transform: readGuest
    )
    var guest: GuestOption?

    @Option(
        help: ArgumentHelp(
            "Instead of --workload: create this Unix socket, and wait for the process that attaches there with its "
                + "workload.",
            valueName: "path"
        )
    )
    var attach: String?

    @OptionGroup var workloadOptions: WorkloadOptions
    @OptionGroup var serialOption: SerialOption
    @OptionGroup var pushOptions: PushOptions
    @OptionGroup var arrivalOptions: ArrivalOptions

    @Option(
        help: ArgumentHelp(
            "What to do if the destination refuses the start: resume the workload here, or keep it stopped and wait for "
                + "pageferry cont at the destination.",
            valueName: "resume|wait"
        )
    )
    var onStartFailure = StartFailureOption.resume

    func validate() throws {
        let isNamed = guest != nil || attach != nil
        if isNamed, try PassedOptions.json(workloadOptions) != PassedOptions.json(WorkloadOptions.parse([])) {
            let which = guest != nil ? "--guest names the workload" : "the process that attaches is the workload"
            throw ValidationError("\(which); drop the options of --workload")
        }
        guard attach == nil || guest == nil else {
            throw ValidationError("an agent has one workload: give --guest or --attach")
        }
        if isNamed { try arrivalOptions.requireNone() }
        try requireSocketPath(attach, besides: agentOptions.qmp)
        try serialOption.validate(for: workloadOptions.workload)
    }

    func run() async throws {
        agentOptions.watchEnd()
        let logger = agentOptions.service.logger("source")
        let witness = try agentOptions.makeWitness()
        let serial = try serialOption.open(logger)
        let attached = try attach.map { try AttachedLanding(socketPath: $0, takesRunning: true, logger: logger) }
        defer { attached?.close() }
        let workload: any Workload =
            if let attached {
                await awaitProcess(at: attached, logger)
            } else if let guest {
                try MicroVM(runningAt: guest.socketPath, logger: logger)
            } else {
                try workloadOptions.makeWorkload(witness: witness, serial: serial)
            }
        var configuration = try agentOptions.configuration()
        pushOptions.fill(&configuration)
        configuration.afterStartRefusal = onStartFailure.policy
        configuration.arrivalRefusal =
            "an agent of `source --guest` takes no workload; start `pageferry destination --guest firecracker:API-SOCKET` "
            + "for a Firecracker that has booted nothing"
        let landing: any Landing =
            try attached
            ?? HostLanding(
                builtIn: arrivalOptions.landing(witness: witness),
                kvm: KVMLanding(output: serial)
            )
        let agent = Agent(
            workload: (workload, workload.sourceMemory ?? []),
            landing: guest == nil ? landing : nil,
            configuration: configuration,
            logger: logger
        )
        try await agentOptions.run(agent, logger: logger) { control in
            try await agent.startWorkload()
            return "\(workload.name) runs, \(control)"
        }
    }
}

extension SourceCommand {
    private func awaitProcess(at landing: AttachedLanding, _ logger: Logger) async -> any Workload {
        logger.notice("waiting for a process at unix:\(attach ?? "")")
        return await landing.runningWorkload()
    }
}

/// The value of `--on-start-failure`: what a source does if the destination cannot start the workload.
enum StartFailureOption: String, Codable, ExpressibleByArgument, CaseIterable {
    case resume, wait

    var policy: StartRefusalPolicy {
        switch self {
        case .resume: .takeBack
        case .wait: .wait
        }
    }
}
