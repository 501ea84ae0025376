import Foundation
import Guest
import Identity
import LinuxSystem
import Logging
import PageProtocol
import PageServer
package import QMP
import RunLease
import Switchover
import Synchronization
import Telemetry

/// The commands of QMP clients.
extension Agent {
    /// The commands that ``handle(_:)`` carries out.
    package nonisolated var commands: [QMPCommandDescription] { AgentCommand.descriptions }

    /// The events that the event sink receives.
    package nonisolated var events: [QMPEventDescription] { AgentEvent.descriptions }

    /// Carries out one command.
    ///
    /// If the agent exits while a command waits, the command fails with that reason.
    package func handle(_ command: QMPCommand) async throws(QMPError) -> JSONValue {
        guard let known = AgentCommand(rawValue: command.name) else { throw .commandNotFound(command.name) }
        await promoteSuccessor()
        do {
            // `quit` waits for the commands, so it must not be one of them. Queries are answered as long
            // as a client can be. The word that the source is gone may be what lets the agent exit, and never waits.
            if known == .quit || known == .sourceGone || known.isQuestion { return try await carryOut(known, command) }
            return try await waiting.answer { try await self.carryOut(known, command) }
        } catch let error as QMPError {
            throw error
        } catch {
            throw .generic("\(error)")
        }
    }

    private func carryOut(_ known: AgentCommand, _ command: QMPCommand) async throws -> JSONValue {
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
            guard outgoing != nil || incoming != nil else { throw Agent.noMigration }
            try await outgoing?.pause()
            try await incoming?.pause()
        case .migrateRecover: try await migrateRecover(command)
        case .destinationGone:
            guard let outgoing else { throw Agent.noMigration }
            try await outgoing.destinationIsGone(hasRun: command.boolean("has-run"))
        case .sourceGone:
            guard let incoming else { throw Agent.noMigration }
            try await incoming.sourceIsGone()
        case .cont: try await cont()
        case .stop: try await stop()
        case .quit:
            guard !isQuitting else { break }
            isQuitting = true
            // The agent may exit before the time is over for which events are held back.
            sink.release()
            sink.send(.shutdown, ["guest": false, "reason": "host-qmp-quit"])
            isQuitUnderWay = true
            await successor?.leave("the agent is exiting", isPatient: false)
            await incoming?.leave("the agent is exiting", isPatient: false)
            for session in earlier { await session.leave("the agent is exiting", isPatient: false) }
            await waiting.end(within: .seconds(1))
            ending.yield(await loss ?? .quit)
        case .setCapabilities: try await setCapabilities(command)
        case .setParameters: try setParameters(command)
        case .queryCapabilities: return queryCapabilities()
        case .queryMigrate: return await queryMigrate()
        case .queryName: return await queryName()
        case .queryParameters: return queryParameters()
        case .queryStatus: return await queryStatus()
        case .queryThreads: return try queryThreads()
        case .report: return try JSONValue(encoding: await report())
        case .verify: return try JSONValue(encoding: try await verify())
        }
        return [:]
    }

    private func migrate(_ command: QMPCommand) async throws {
        let address = try command.migrationAddress()
        if try command.booleanIfPresent("resume") ?? false {
            guard let outgoing else {
                throw CommandRefused(reason: "no migration is paused here; \(SourceSession.whoResumes)")
            }
            return try await outgoing.recover(at: address)
        }
        let wanted = try wantedDestination(command)
        try requirePostcopy()
        try await refuseEnded()
        let (workload, memory) = try await movable()
        let (earlier, arrival) = (outgoing, incoming)
        // If the earlier session has nothing left to say when the new one begins, keeping it does no harm.
        let owesWord = await earlier?.isNeeded ?? false
        if let state = await earlier?.snapshot() {
            guard state.state == .failed || state.state == .cancelled, state.isWorkloadHere else {
                throw CommandRefused(reason: Agent.begunBefore(state))
            }
            // A record that the earlier migration writes late would win against the record of the next destination.
            if await earlier?.isRegainingLease == true {
                throw CommandRefused(
                    reason:
                        "the run lease is still being taken back after the last migration; try again when its store answers"
                )
            }
        }
        if let underWay { throw CommandRefused(reason: "\(underWay) is under way; try again when it has ended") }
        let epoch = try await exclusively("migrate") {
            try await onThread("lease") { [lease] in try lease?.begin(isStart: false) ?? 0 }
        }
        // No `await` from here to the assignment of `outgoing`: of two clients that send `migrate` at once, one is
        // refused.
        if let arrival { try await adopt(workload, memory, of: arrival) }
        guard outgoing === earlier else {
            throw CommandRefused(reason: "another client has just begun a migration; look again with query-migrate")
        }
        if let underWay { throw CommandRefused(reason: "\(underWay) is under way; try again when it has ended") }
        let isPaused = !workload.activity.isRunning
        if isPaused {
            if let endReason { throw CommandRefused(reason: "the workload has ended: \(endReason)") }
            guard workload.movesPaused else { throw CommandRefused(reason: "the workload is stopped; run cont first") }
        }
        guard !isQuitting else { throw CommandRefused(reason: "this agent is exiting") }
        let session = try SourceSession(
            workload: workload,
            regions: memory,
            destination: address,
            settings: SourceSession.Settings(
                instance: instance,
                wanted: wanted,
                isPaused: isPaused,
                pushes: configuration.pushes,
                pushLanes: pushLanes,
                releasesMemory: isOn(.releaseRAM),
                polling: configuration.polling,
                compression: compression,
                countsPlaces: configuration.countsPlaces,
                refusalPolicy: configuration.afterStartRefusal,
                pausesBeforeSwitchover: isOn(.pauseBeforeSwitchover),
                lease: lease,
                peerTimeout: configuration.peerTimeout,
                recoveryTime: configuration.recoveryTime,
                wordTime: configuration.wordTime,
                clock: configuration.clock
            ),
            epoch: epoch,
            logger: logger,
            sink: sink
        )
        session.pageServer.limitPush(bytesPerSecond: maxPostcopyBandwidth)
        if let earlier, owesWord { keep(earlier) }
        outgoing = session
        try await session.begin()
    }

    /// The refusal of a command for a migration at an agent that knows of none.
    private static let noMigration = CommandRefused(
        reason: "no migration is under way here; query-migrate at the other agent shows whether it knows of one"
    )

    /// Why the last migration from here lets no other one begin, and what to do instead.
    private static func begunBefore(_ last: SourceSession.Status) -> String {
        switch last.state {
        case .completed: "the workload has moved to \(last.destination); send migrate to the agent there"
        case .failed, .cancelled: "the last migration is \(last.state.rawValue): \(last.failureReason ?? "")"
        case .postcopyPaused: "a migration is under way, in \(last.state.rawValue); run migrate with resume"
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice:
            "a migration is under way, in \(last.state.rawValue); wait until query-migrate shows completed, or run "
                + "migrate_cancel first"
        case .postcopyActive, .postcopyRecoverSetup, .postcopyRecover, .cancelling:
            "a migration is under way, in \(last.state.rawValue); wait until query-migrate shows completed"
        }
    }

    /// The instance id that `migrate` requires of the destination, as the destination's report shows it; nil for any.
    ///
    /// - Throws: `QMPError` if the argument is no instance id, ``CommandRefused`` if it names this agent.
    private func wantedDestination(_ command: QMPCommand) throws -> InstanceID? {
        guard let text = try command.stringIfPresent("pageferry-destination") else { return nil }
        guard let wanted = InstanceID(hex: text) else {
            throw QMPError.generic("Parameter 'pageferry-destination' expects an instance id of 32 hexadecimal digits")
        }
        guard wanted != instance else {
            throw CommandRefused(reason: "the workload is already here: this agent is both source and destination")
        }
        return wanted
    }

    /// Keeps a session until it has told its destination that the workload was taken back.
    private func keep(_ session: SourceSession) {
        earlierSources.append(session)
        Task {
            await session.ended()
            earlierSources.removeAll { $0 === session }
        }
    }

    /// `migrate-continue`: continues from pre-switchover, the only state in which a migration waits for this command.
    private func migrateContinue(_ command: QMPCommand) async throws {
        let name = try command.string("state")
        guard let awaited = MigrationState(rawValue: name) else {
            throw QMPError.generic("Parameter 'state' does not accept value '\(name)'")
        }
        if awaited == .preSwitchover, let outgoing { return try await outgoing.migrateContinue() }
        let state = await outgoing?.snapshot().state ?? .none
        throw CommandRefused(reason: "the migration does not wait in \(name), it is \(state.rawValue)")
    }

    private func cont() async throws {
        guard !hasEnded else { throw CommandRefused(reason: "this agent is exiting") }
        // Until the workload has started here, only the session can decide about the start.
        if let incoming, await !incoming.snapshot().hasStarted {
            try await incoming.cont()
            // If the workload has just arrived paused, this `cont` has to resume it.
            guard await incoming.hasArrivedPaused else { return }
        }
        // If the resume of a source failed before, `cont` tries it again.
        if let outgoing, await outgoing.snapshot().isHeld {
            try await outgoing.retryResume()
            guard outgoing.settings.isPaused else { return }
        }
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
        sink.send(.resume)
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
            throw CommandRefused(
                reason: "the workload may be waiting for a missing page; run migrate with resume at its source first"
            )
        }
        try await onThread("stop") { try workload.stop() }
        await incoming?.noteFirstOperation()
        sink.send(.stop)
    }

    /// Runs an operation that starts or stops the workload or needs it stopped, one at a time.
    ///
    /// No such operation runs while a migration begins: a late start must not run a workload that has moved away
    /// meanwhile.
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

    /// `pageferry-verify`: checks every page against what the workload expects.
    ///
    /// A running workload is stopped for the check and then resumed. Both happen within this one command, so that a
    /// client that dies meanwhile cannot leave the workload stopped.
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
                outcome = .success(try await onThread("verify") { try workload.verify() })
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
    /// Converts an encodable value to JSON.
    ///
    /// - Throws: an encoding error if the value has no JSON form.
    init(encoding value: some Encodable) throws {
        self = try JSONDecoder().decode(JSONValue.self, from: JSONEncoder().encode(value))
    }
}
