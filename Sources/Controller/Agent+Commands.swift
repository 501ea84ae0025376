import Foundation
import Guest
import LinuxSystem
import Logging
public import QMP
import SourceAgent
import Switchover
import Synchronization
import Telemetry

/// What QMP clients can ask for.
extension Agent {
    private enum Command: String, CaseIterable {
        case cont, migrate, quit, stop
        case migrateCancel = "migrate_cancel"
        case migratePause = "migrate-pause"
        case migrateRecover = "migrate-recover"
        case destinationGone = "pageferry-destination-gone"
        case migrateContinue = "migrate-continue"
        case migrateIncoming = "migrate-incoming"
        case migrateStartPostcopy = "migrate-start-postcopy"
        case queryCapabilities = "query-migrate-capabilities"
        case queryMigrate = "query-migrate"
        case queryName = "query-name"
        case queryParameters = "query-migrate-parameters"
        case queryStatus = "query-status"
        case setCapabilities = "migrate-set-capabilities"
        case setParameters = "migrate-set-parameters"
        case report = "pageferry-report"
        case verify = "pageferry-verify"

        var takesArguments: Bool {
            switch self {
            case .migrate, .migrateContinue, .migrateIncoming, .migrateRecover, .destinationGone, .setCapabilities,
                .setParameters:
                true
            case .cont, .migrateCancel, .migratePause, .migrateStartPostcopy, .queryCapabilities, .queryMigrate,
                .queryName, .queryParameters,
                .queryStatus, .quit, .report, .stop, .verify:
                false
            }
        }
    }

    /// The commands' names.
    public nonisolated var commandNames: [String] { Command.allCases.map(\.rawValue) }

    /// At a destination it is the source that decides when the workload can run.
    public nonisolated var patientCommands: Set<String> { [Command.cont.rawValue] }

    /// Carries out one command.
    public func handle(_ command: QMPCommand) async throws(QMPError) -> JSONValue {
        guard let known = Command(rawValue: command.name) else { throw .commandNotFound(command.name) }
        await promoteSuccessor()
        do {
            if !known.takesArguments { try command.allowOnly() }
            switch known {
            case .migrate: try await migrate(command)
            case .migrateIncoming: try await migrateIncoming(command)
            case .migrateContinue: try await migrateContinue(command)
            case .migrateStartPostcopy:
                guard let outgoing else { throw CommandRefused(reason: "no migration is under way; run migrate first") }
                try await outgoing.startPostcopy()
            case .migrateCancel:
                if let outgoing { try await outgoing.cancel() } else { try await (successor ?? incoming)?.cancel() }
            case .migratePause:
                guard outgoing != nil || incoming != nil else {
                    throw CommandRefused(reason: "no migration is under way here")
                }
                try await outgoing?.pause()
                try await incoming?.pause()
            case .migrateRecover: try await migrateRecover(command)
            case .destinationGone:
                try command.allowOnly("has-run")
                guard let outgoing else { throw CommandRefused(reason: "no migration is under way here") }
                try await outgoing.destinationIsGone(hasRun: command.boolean("has-run"))
            case .cont: try await cont()
            case .stop: try await stop()
            case .quit:
                guard !isQuitting else { break }
                isQuitting = true
                sink.send("SHUTDOWN", ["guest": false, "reason": "host-qmp-quit"])
                isQuitUnderWay = true
                await successor?.leave("the agent ends", isPatient: false)
                await incoming?.leave("the agent ends", isPatient: false)
                for session in earlier { await session.leave("the agent ends", isPatient: false) }
                ending.yield(.quit)
            case .setCapabilities: try setCapabilities(command)
            case .setParameters: try setParameters(command)
            case .queryCapabilities: return queryCapabilities()
            case .queryMigrate: return await queryMigrate()
            case .queryName: return await queryName()
            case .queryParameters: return queryParameters()
            case .queryStatus: return await queryStatus()
            case .report: return try JSONValue(encoding: await report())
            case .verify: return try JSONValue(encoding: try await verify())
            }
            return [:]
        } catch let error as QMPError {
            throw error
        } catch {
            throw .generic("\(error)")
        }
    }

    private func migrate(_ command: QMPCommand) async throws {
        // Clients of QEMU's say detach, which has no meaning there either.
        try command.allowOnly("uri", "channels", "resume", "detach")
        _ = try command.booleanIfPresent("detach")
        let address = try command.migrationAddress()
        if try command.booleanIfPresent("resume") ?? false {
            guard let outgoing else { throw CommandRefused(reason: "no migration is paused here") }
            return try await outgoing.recover(at: address)
        }
        try await refuseEnded()
        let (workload, memory) = try await movable()
        let (earlier, arrival) = (outgoing, incoming)
        // Its word may have been said by the time that this migration begins, which does no harm.
        let owesWord = await earlier?.isNeeded ?? false
        if let state = await earlier?.snapshot() {
            guard state.state == .failed || state.state == .cancelled, state.isWorkloadHere else {
                throw CommandRefused(reason: "a migration was begun before, it is \(state.state.rawValue)")
            }
            // Written late, its record would beat that of the next destination.
            if await earlier?.isRegainingLease == true {
                throw CommandRefused(
                    reason:
                        "the run lease is still being taken back after the last migration; try again when its store answers"
                )
            }
        }
        if let underWay { throw CommandRefused(reason: "\(underWay) is under way; try again when it has ended") }
        let epoch = try await exclusively("migrate") {
            try await onThread("lease") { [lease] in try lease?.begin() ?? 0 }
        }
        // From here to the assignment nothing is awaited: of two clients that ask at once, one is refused.
        if let arrival { try await adopt(workload, memory, of: arrival) }
        guard outgoing === earlier else { throw CommandRefused(reason: "another client has just begun a migration") }
        if let underWay { throw CommandRefused(reason: "\(underWay) is under way; try again when it has ended") }
        guard workload.activity.isRunning else {
            try await refuseEnded()
            throw CommandRefused(reason: "the workload is stopped; run cont first")
        }
        guard !isQuitting else { throw CommandRefused(reason: "this agent ends") }
        let session = try SourceSession(
            workload: workload,
            regions: memory,
            destination: address,
            instance: instance,
            settings: SourceSession.Settings(
                pushes: configuration.pushes,
                releasesMemory: releasesMemory,
                refusalPolicy: configuration.afterStartRefusal,
                lease: lease,
                peerTimeout: configuration.peerTimeout,
                recoveryTime: configuration.recoveryTime
            ),
            epoch: epoch,
            logger: logger,
            sink: sink
        )
        session.agent.limitPush(bytesPerSecond: parameter(.maxPostcopyBandwidth))
        if let earlier, owesWord { keep(earlier) }
        outgoing = session
        try await session.begin()
    }

    /// Keeps a session for as long as it owes its destination a word.
    private func keep(_ session: SourceSession) {
        earlierSources.append(session)
        Task {
            await session.ended()
            earlierSources.removeAll { $0 === session }
        }
    }

    /// `migrate-continue`: goes on from a state in which no migration here waits, as `pause-before-switchover` is off.
    private func migrateContinue(_ command: QMPCommand) async throws {
        try command.allowOnly("state")
        let name = try command.string("state")
        guard MigrationState(rawValue: name) != nil || name == "pre-switchover" else {
            throw QMPError.generic("Parameter 'state' does not accept value '\(name)'")
        }
        let state = await outgoing?.snapshot().state ?? .none
        throw CommandRefused(reason: "the migration does not wait in \(name), it is \(state.rawValue)")
    }

    private func cont() async throws {
        guard !hasEnded else { throw CommandRefused(reason: "this agent ends") }
        // Until it has started here, the session alone says whether and when it does.
        if let incoming, await !incoming.snapshot().hasStarted { return try await incoming.cont() }
        // A source that could not resume tries again.
        if let outgoing, await outgoing.snapshot().isHeld { return try await outgoing.retryResume() }
        try await exclusively("cont") {
            let workload = try await ownership().get()
            guard !workload.activity.isRunning else { return }
            try await refuseEnded()
            try await letRun(workload)
        }
    }

    /// Refuses to start or move a workload that has ended by itself.
    private func refuseEnded() async throws {
        if let end = await workloadEnd { throw CommandRefused(reason: "the workload has ended: \(end)") }
    }

    private func letRun(_ workload: any Workload) async throws {
        try await onThread("start") { try WorkloadStart.inPlace(workload) }
        sink.send("RESUME")
    }

    private func stop() async throws {
        try await exclusively("stop") {
            let workload = try await ownership().get()
            guard workload.activity.isRunning else { return }
            try await halt(workload)
        }
    }

    private func halt(_ workload: any Workload) async throws {
        if let incoming, await incoming.snapshot().state == .postcopyPaused {
            throw CommandRefused(reason: "the workload may wait for a page that is missing; run recover first")
        }
        try await onThread("stop") { try workload.stop() }
        await incoming?.noteFirstOperation()
        sink.send("STOP")
    }

    /// Begins or ends the workload's running, or relies on it being stopped: one at a time, and never while a migration
    /// begins. A start that comes late must not meet a workload that has been given away meanwhile.
    func exclusively<Value: Sendable>(
        _ name: String,
        _ body: () async throws -> Value
    ) async throws -> Value {
        while underWay != nil { await withCheckedContinuation { queue.append($0) } }
        underWay = name
        defer {
            underWay = nil
            queue.forEach { $0.resume() }
            queue = []
        }
        return try await body()
    }

    /// `pageferry-verify`: checks every page. A workload that runs is stopped meanwhile, in the one command, so that no
    /// client that dies on the way leaves it stopped.
    private func verify() async throws -> Report.Verify {
        let outcome = try await exclusively("verify") {
            let workload = try await ownership().get()
            guard workload.canVerify else {
                throw CommandRefused(reason: "this workload cannot check its own pages")
            }
            let runs = workload.activity.isRunning
            if runs { try await halt(workload) }
            let outcome: Result<Verification?, any Error>
            do {
                outcome = .success(try await onThread("verify") { workload.verify() })
            } catch {
                outcome = .failure(error)
            }
            if runs { try await letRun(workload) }
            return try outcome.get()
        }
        guard let outcome else { throw CommandRefused(reason: "this workload cannot check its own pages") }
        var verify = Report.Verify()
        verify.pagesChecked = outcome.pagesChecked
        verify.corrupt = outcome.corrupt
        verify.linesFound = outcome.lines?.found
        verify.linesTotal = outcome.lines?.total
        return verify
    }
}

extension JSONValue {
    /// The JSON form of a value that can be encoded.
    init(encoding value: some Encodable) throws {
        self = try JSONDecoder().decode(JSONValue.self, from: JSONEncoder().encode(value))
    }
}
