import ArgumentParser
import Controller
import Foundation
import LinuxSystem
import Logging
import QMP
import RunLease
import Synchronization
import Web
import Workloads

/// The options of every agent: control sockets, run lease, redialing, and logging.
struct AgentOptions: ParsableArguments, Encodable {
    @Option(
        help: ArgumentHelp(
            "Listen for QMP clients at this control socket: unix:PATH, which is required, or tcp:HOST:PORT in addition. "
                + "May be repeated.",
            valueName: "address"
        ),
        transform: readControl
    )
    var qmp: [SocketAddress]

    @Flag(help: "Allow addresses that other hosts can reach, although connections are not authenticated or encrypted.")
    var insecure = false

    @Option(
        help: ArgumentHelp(
            "The run lease: a directory that both hosts mount, and the workload's name in it. The lease decides which "
                + "side may run the workload when the two agents cannot reach each other (default: none).",
            valueName: "dir/name"
        ),
        transform: readLease
    )
    var lease = LeaseOption.none

    @Option(
        help: ArgumentHelp(
            "How long a source redials after its link to the destination broke; 0: not at all. A destination waits as "
                + "long for a source to which it owes an answer (default: 300s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var recoverFor = TimeSpan(nanoseconds: 300_000_000_000)

    @OptionGroup var httpOptions: HTTPOptions

    @OptionGroup var service: ServiceOptions

    @Flag(help: .hidden)
    var endWithInput = false

    @Flag(help: .hidden)
    var leaveWithInput = false

    /// A file in which a built-in workload records when it runs, for tests.
    @Option(help: .hidden)
    var witness: String?

    func validate() throws {
        guard qmp.contains(where: { if case .unix = $0 { true } else { false } }) else {
            throw ValidationError("an agent needs a control socket: --qmp unix:PATH")
        }
        if let twice = qmp.indices.first(where: { place in qmp[..<place].contains { $0.sharesPort(with: qmp[place]) } })
        {
            throw ValidationError("--qmp \(qmp[twice]) is given twice; drop one, or choose another path or port")
        }
        for address in qmp {
            try requireLocal(address, unless: insecure, ", and everyone who can connect controls the agent")
        }
        try httpOptions.requireLocal(unless: insecure)
    }

    /// Makes the agent's configuration from these options.
    ///
    /// - Throws: `RunLeaseError` if the lease's directory cannot be used.
    func configuration() throws -> Agent.Configuration {
        var configuration = Agent.Configuration()
        configuration.isInsecure = insecure
        configuration.peerTimeout = service.peerTimeout.duration
        configuration.recoveryTime = recoverFor.duration
        configuration.polling = service.pollOption.poll.duration
        configuration.countsPlaces = httpOptions.http != nil
        if case .files(let directory, let workload) = lease {
            configuration.lease = (try FileRunLeaseStore(directory: directory), workload)
        }
        return configuration
    }

    /// Starts to watch for signals and, with a hidden option, for the end of standard input, and raises the limit of
    /// descriptors.
    ///
    /// Call this before memory is filled, so that the process can be told to exit meanwhile.
    func watchEnd() {
        // Before children and threads, which must not hear of the manager.
        _ = Service.manager
        DescriptorLimit.raise()
        EndSignals.watch()
        if endWithInput || leaveWithInput { InputEnd.shared.watch(seesMigrationThrough: leaveWithInput) }
    }

    func makeWitness() throws -> Witness? {
        try witness.map { try Witness(path: $0) }
    }

    /// Runs an agent and its control sockets until the agent ends.
    ///
    /// `begin` is called once the control sockets accept commands, with a text that names the sockets. `begin` returns
    /// the line that reports the agent as ready.
    func run(_ agent: Agent, logger: Logger, _ begin: (_ control: String) async throws -> String) async throws {
        let server = QMPServer(version: Release.qmp, handler: agent, logger: logger)
        agent.setEventSink { server.broadcast(event: $0.name, data: $0.data, at: $0.timestamp) }
        // Before the agent takes the lease: from here on, neither one signal nor the end of standard input kills the
        // process before the agent has released the lease.
        InputEnd.shared.tell(agent)
        let isEnding = Atomic<Bool>(false)
        EndSignals.take(onHangUp: Reload.handler(logger)) {
            if isEnding.exchange(true, ordering: .relaxed) {
                logger.warning("signalled twice, so this agent exits at once; see pageferry status of the other agent")
                Foundation.exit(1)
            }
            Task {
                let need = await agent.need
                Service.stopping(need ?? "exiting", logger)
                if let need {
                    logger.warning("\(need); signal it again to exit at once")
                }
                await agent.quitWhenUnneeded()
            }
        }
        var web: (server: WebServer, address: String)?
        do {
            var control: [String] = []
            for address in qmp {
                let bound = try await server.listen(on: address)
                control.append("\(bound)")
                if !bound.isLocal {
                    logger.warning("\(bound) is not authenticated: everyone who can connect controls this agent")
                } else if case .tcp = bound {
                    let remedy = "use the unix: socket, which only its owner can open, and drop --qmp \(address)"
                    logger.warning("every user of this host can control this agent at \(bound); \(remedy)")
                }
            }
            web = try await httpOptions.serve(agent, logger)
            let ready = try await begin("controlled at " + control.joined(separator: " and "))
            logger.notice("\(Release.description)")
            Service.watchTasks(logger) { _ = await agent.need }
            Service.ready(ready, watched: web, logger)
        } catch {
            // The agent may have started its workload before the error.
            await agent.end()
            await web?.server.end()
            await server.shutdown()
            throw error
        }
        let outcome = await agent.outcome()
        let isLeaseReleased = await agent.end()
        await web?.server.end()
        await server.shutdown()
        if case .failed(let reason) = outcome { throw Failure(reason) }
        // The agent has logged why the lease is not released.
        guard isLeaseReleased else { throw ExitCode(1) }
    }
}

/// The value of `--lease`: the directory of a run lease and the workload's name, or none.
enum LeaseOption: ExpressibleByArgument, CodableAsText {
    case none
    case files(directory: String, workload: String)

    init?(argument: String) {
        if argument == "none" {
            self = .none
            return
        }
        guard let slash = argument.lastIndex(of: "/"), argument.index(after: slash) < argument.endIndex else {
            return nil
        }
        let directory = slash == argument.startIndex ? "/" : String(argument[..<slash])
        let workload = String(argument[argument.index(after: slash)...])
        guard FileRunLeaseStore.isName(workload) else { return nil }
        self = .files(directory: directory, workload: workload)
    }

    var description: String {
        switch self {
        case .none: "none"
        case .files(let directory, let workload): "\(directory)/\(workload)"
        }
    }
}
