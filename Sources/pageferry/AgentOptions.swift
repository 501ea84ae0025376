import ArgumentParser
import Controller
import Foundation
import LinuxSystem
import Logging
import QMP
import RunLease
import Synchronization
import Workloads

/// Where an agent is controlled, and how much it says.
struct AgentOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Where the agent is controlled by QMP: unix:PATH, or tcp:HOST:PORT beside it; may be repeated.",
            valueName: "address"
        ),
        transform: readAddress
    )
    var qmp: [SocketAddress]

    @Flag(help: "Allow listening where other hosts can reach the agent, though channels are not authenticated.")
    var insecure = false

    @Option(
        help: ArgumentHelp(
            "Let a run lease decide who runs where messages cannot: a directory that both hosts mount, and the "
                + "workload's name in it (default: none).",
            valueName: "dir/name"
        ),
        transform: readLease
    )
    var lease = LeaseOption.none

    @Option(
        help: ArgumentHelp(
            "How long an agent looks for its peer by itself after their connection broke; 0: not at all (default: 300s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var recoverFor = TimeSpan(nanoseconds: 300_000_000_000)

    @OptionGroup var service: ServiceOptions

    @Flag(help: .hidden)
    var endWithInput = false

    @Flag(help: .hidden)
    var leaveWithInput = false

    /// A file that is told of each operation of a built-in workload.
    @Option(help: .hidden)
    var witness: String?

    func validate() throws {
        guard qmp.contains(where: { if case .unix = $0 { true } else { false } }) else {
            throw ValidationError("an agent needs a control socket: --qmp unix:PATH")
        }
        guard !insecure, let exposed = qmp.first(where: { !$0.isLocal }) else { return }
        throw ValidationError(
            "\(exposed) can be reached from other hosts, and whoever reaches it controls the agent; use 127.0.0.1, or "
                + "say --insecure"
        )
    }

    /// What these options say of an agent's behaviour.
    func configuration() throws -> Agent.Configuration {
        var configuration = Agent.Configuration()
        configuration.isInsecure = insecure
        configuration.peerTimeout = service.peerTimeout.duration
        configuration.recoveryTime = recoverFor.duration
        if case .files(let directory, let workload) = lease {
            configuration.lease = (try FileRunLeaseStore(directory: directory), workload)
        }
        return configuration
    }

    /// Lets the process end when whoever started it does, if that was asked for: also while memory is being filled.
    func watchInput() {
        if endWithInput || leaveWithInput { InputEnd.shared.watch(seesMigrationThrough: leaveWithInput) }
    }

    func makeWitness() throws -> Witness? {
        try witness.map { try Witness(path: $0) }
    }

    /// Runs an agent and its control sockets until it is told to quit.
    ///
    /// - Parameter begin: called once the control sockets are there; says what is ready.
    func run(_ agent: Agent, logger: Logger, _ begin: () async throws -> String) async throws {
        let server = QMPServer(handler: agent, logger: logger)
        agent.setEventSink { name, data in server.broadcast(event: name, data: data) }
        // From before the lease is taken on, so that nothing ends the process at once while it has the lease.
        InputEnd.shared.tell(agent)
        let isEnding = Atomic<Bool>(false)
        let signals = EndSignals {
            if isEnding.exchange(true, ordering: .relaxed) { Foundation.exit(1) }
            Task {
                if await agent.isNeeded {
                    logger.warning(
                        "a migration needs this agent, which ends when that has, or when it is told again"
                    )
                }
                await agent.quitWhenUnneeded()
            }
        }
        do {
            for address in qmp {
                let bound = try await server.listen(on: address)
                if !bound.isLocal {
                    logger.warning("\(bound) gives control of this agent to whoever reaches it, unauthenticated")
                } else if case .tcp = bound {
                    let remedy = "control it at its unix: socket, which is of mode 0600, and drop --qmp \(address)"
                    logger.warning("\(bound) gives control of this agent to every user of this host; \(remedy)")
                }
            }
            try Terminal.ready(try await begin())
        } catch {
            // The workload may have started before that.
            await agent.end()
            withExtendedLifetime(signals) {}
            await server.shutdown()
            throw error
        }
        let outcome = await agent.outcome()
        await agent.end()
        withExtendedLifetime(signals) {}
        await server.shutdown()
        if case .failed(let reason) = outcome { throw Failure(reason) }
    }
}
