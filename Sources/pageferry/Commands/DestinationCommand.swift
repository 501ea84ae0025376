import ArgumentParser
import Attachments
import Controller
import Guest
import KVMGuest
import LinuxSystem
import MicroVMGuest
import Workloads

/// Waits for a workload and runs it.
struct DestinationCommand: AgentProgram {
    static let configuration = CommandConfiguration(
        commandName: "destination",
        abstract: "Wait for a workload, and run it before its memory has arrived.",
        discussion: """
            With --listen, the agent waits for the next source if a migration fails before the workload runs here. \
            Without --listen, it waits for pageferry migrate, and for the next one after such a failure. After the QMP \
            command migrate-incoming, which may say otherwise by exit-on-error, it exits with status 1.

            Example:

              pageferry destination --qmp /run/b.sock --listen 127.0.0.1:7000
            """
    )

    @OptionGroup var agentOptions: AgentOptions

    @Option(
        help: ArgumentHelp("Wait for a source at this address as soon as the agent runs.", valueName: "host:port"),
        transform: readAddress
    )
    var listen: SocketAddress?

    @Flag(help: "Start the workload only on `pageferry cont`.")
    var stopped = false

    @OptionGroup var faultOptions: FaultOptions
    @OptionGroup var serialOption: SerialOption

    @Option(
        help: ArgumentHelp(
            "Create this Unix socket, and let the workload arrive in the process that hands over its userfaultfd there.",
            valueName: "path"
        )
    )
    var attach: String?

    @Option(
        help: ArgumentHelp(
            "Let a microVM arrive in the Firecracker with this API socket, which has booted nothing yet.",
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
        if let listen {
            let consequence = ", and everyone who can connect can read and write the workload's memory"
            try requireLocal(listen, unless: agentOptions.insecure, consequence)
        }
        if guest != nil, attach != nil {
            throw ValidationError("a workload can arrive in one place only: give --guest or --attach")
        }
        if guest != nil || attach != nil, serialOption.serial != nil {
            throw ValidationError("--serial is for guests of --workload kvm; drop it, or drop --guest and --attach")
        }
        if guest != nil || attach != nil { try arrivalOptions.requireNone() }
        if guest != nil, faultOptions.inThread {
            throw ValidationError("--in-thread is for built-in workloads; the kernel touches a microVM's memory")
        }
        guard attach == nil || !faultOptions.inThread else {
            throw ValidationError("--in-thread is for built-in workloads; a process that attaches has its own threads")
        }
        try requireSocketPath(attach, besides: agentOptions.qmp)
    }

    func run() async throws {
        agentOptions.watchEnd()
        let logger = agentOptions.service.logger("destination")
        var configuration = try agentOptions.configuration()
        configuration.startsStopped = stopped
        configuration.prefetch = faultOptions.prefetch
        configuration.faultThreads = faultOptions.threads
        // Opened now, so that a missing permission is reported before a migration begins.
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
                kvm: KVMLanding(output: serialOption.open(logger)),
                resolvesInThread: faultOptions.inThread
            )
        let agent = Agent(workload: nil, landing: landing, configuration: configuration, logger: logger)
        try await agentOptions.run(agent, logger: logger) { control in
            guard let listen else { return control }
            let address = try await agent.listen(at: listen, exitsOnError: true, waitsOn: true)
            return "\(control), listening at \(address)"
        }
    }
}
