import ArgumentParser
import Attachments
import Controller
import Guest
import KVMGuest
import LinuxSystem
import MicroVMGuest
import Workloads

/// Waits for a workload and runs it.
struct DestinationCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "destination",
        abstract: "Wait for a workload, and run it before its memory is here.",
        discussion: """
            With --listen, waits for the next source if a migration fails before the workload runs here. Told to wait by \
            migrate-incoming instead, ends with status 1 then. Example:

              pageferry destination --qmp /run/b.sock --listen 127.0.0.1:7000
            """
    )

    @OptionGroup var agentOptions: AgentOptions

    @Option(
        help: ArgumentHelp("Wait for a source at this address at once.", valueName: "host:port"),
        transform: readAddress
    )
    var listen: SocketAddress?

    @Flag(help: "Do not start the workload before cont.")
    var stopped = false

    @OptionGroup var faultOptions: FaultOptions
    @OptionGroup var serialOption: SerialOption

    @Option(
        help: ArgumentHelp(
            "Let the workload arrive in a process that hands its userfaultfd over at this socket.",
            valueName: "path"
        )
    )
    var attach: String?

    @Option(
        help: ArgumentHelp(
            "Let a microVM arrive in a Firecracker that was just started.",
            valueName: "firecracker:api-socket"
        ),
        transform: readGuest
    )
    var guest: GuestOption?

    @OptionGroup var arrivalOptions: ArrivalOptions

    func validate() throws {
        if let listen, case .unix = listen {
            throw ValidationError("a source reaches a destination by TCP only, not at \(listen); give HOST:PORT")
        }
        if guest != nil, attach != nil {
            throw ValidationError("a workload arrives in one place: give --guest or --attach")
        }
        if guest != nil || attach != nil, serialOption.serial != nil {
            throw ValidationError("--serial is for guests of --workload kvm, which arrive without --guest and --attach")
        }
        if guest != nil, faultOptions.inThread {
            throw ValidationError("--in-thread is for built-in workloads; the kernel touches a microVM's memory")
        }
        guard let attach else { return }
        guard !faultOptions.inThread else {
            throw ValidationError("--in-thread is for built-in workloads; a process that attaches has its own threads")
        }
        do {
            _ = try SocketAddress("unix:\(attach)")
        } catch {
            throw ValidationError("--attach: \(error.reason)")
        }
    }

    func run() async throws {
        agentOptions.watchInput()
        let logger = agentOptions.service.logger("destination")
        var configuration = try agentOptions.configuration()
        configuration.startsStopped = stopped
        configuration.prefetch = faultOptions.prefetch
        configuration.faultThreads = faultOptions.threads
        // Asked for now, so that a missing permission is told before anybody counts on this host.
        _ = try Userfaultfd()
        let attached = try attach.map { try AttachedLanding(socketPath: $0, logger: logger) }
        defer { attached?.close() }
        let landing: any Landing =
            try attached
            ?? guest.map { try MicroVMLanding(socketPath: $0.socketPath, logger: logger) }
            ?? HostLanding(
                builtIn: arrivalOptions.landing(
                    witness: agentOptions.makeWitness(),
                    resolvesInThread: faultOptions.inThread
                ),
                kvm: KVMLanding(output: serialOption.open()),
                resolvesInThread: faultOptions.inThread
            )
        let agent = Agent(workload: nil, landing: landing, configuration: configuration, logger: logger)
        try await agentOptions.run(agent, logger: logger) {
            guard let listen else { return "controlled at \(agentOptions.qmp[0])" }
            let address = try await agent.listen(at: listen, exitsOnError: true, waitsOn: true)
            return "controlled at \(agentOptions.qmp[0]), listening at \(address)"
        }
    }
}
