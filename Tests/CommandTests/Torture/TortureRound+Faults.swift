import Glibc
import LinuxSystem

/// The faults of a migration that is under way.
extension TortureRound {
    /// Plays the planned faults, and returns when the network is whole and no process is stopped or frozen.
    func beat(
        _ move: TortureMove,
        _ blows: [TorturePlan.Blow],
        _ resuming: (move: TortureMove, next: TorturePlan.Next)?
    ) throws {
        let start = MonotonicClock.now()
        var moments: [(at: Int, deed: () throws -> Void)] = []
        for blow in blows {
            moments.append((blow.at, { try self.strike(blow.fault, move) }))
            moments.append((blow.at + blow.lasts, { try self.mend(blow.fault, move) }))
        }
        if let resuming {
            moments.append((resuming.next.sourceResumes ?? 0, { try self.letHear(resuming.move, resuming.next) }))
        }
        for moment in moments.sorted(by: { $0.at < $1.at }) {
            let due = start + UInt64(moment.at) * 1_000_000
            let now = MonotonicClock.now()
            if due > now { usleep(UInt32((due - now) / 1000)) }
            try moment.deed()
        }
    }

    private func strike(_ fault: TorturePlan.Fault, _ move: TortureMove) throws {
        say("\(fault)")
        let (source, destination, link) = (move.source, move.destination, move.link)
        switch fault {
        // A killed process that writes into a frozen store exits only with the thaw.
        case .killSource: source.process.kill()
        case .killDestination: destination.process.kill()
        case .killMigrate: move.migrate.end()
        case .stopSource: source.stop()
        case .stopDestination: destination.stop()
        case .stopMigrate: move.migrate.signal(SIGSTOP)
        case .cutLink: try link.cut()
        case .cutToSource: try link.loseWhat(destination.host)
        case .cutToDestination: try link.loseWhat(source.host)
        case .loseOpenings: try link.loseOpenings(source.host, port: plan.lostPort)
        case .freezeStore: try store?.freeze()
        case .cancel:
            // Before the migration has begun, there is nothing to cancel, and the cancel succeeds.
            let ends = ["", "none", "failed", "cancelled", "completed"]
            let isUnderWay = try !source.isStopped && !ends.contains(source.view().state)
            move.cancels.append((try move.command("cancel", ["cancel", source.socket]), isUnderWay))
        case .cancelDestination:
            move.words.append(try move.command("cancel-there", ["cancel", destination.socket]))
        case .cont: try move.cont()
        case .migrateAgain: move.words.append(try move.startMigrate("migrate-again"))
        case .recover: try move.recover()
        case .quitSource: leave(source) { $0.tell("quit") }
        case .quitDestination: leave(destination) { $0.tell("quit") }
        case .endSource: leave(source) { $0.process.signal(SIGTERM) }
        case .endDestination: leave(destination) { $0.process.signal(SIGTERM) }
        }
    }

    private func leave(_ agent: TortureAgent, _ tell: (TortureAgent) -> Void) {
        guard agent.isAlive else { return }
        agent.isLeaving = true
        tell(agent)
    }

    private func mend(_ fault: TorturePlan.Fault, _ move: TortureMove) throws {
        let (source, destination, link) = (move.source, move.destination, move.link)
        switch fault {
        case .killSource, .killDestination, .killMigrate, .cancel, .cancelDestination, .cont, .migrateAgain, .recover,
            .quitSource, .quitDestination, .endSource, .endDestination:
            return
        case .stopSource: source.goOn()
        case .stopDestination: destination.goOn()
        case .stopMigrate: move.migrate.signal(SIGCONT)
        case .cutLink: try link.mend()
        case .cutToSource: try link.loseNothing(destination.host)
        case .cutToDestination: try link.loseNothing(source.host)
        case .loseOpenings: try link.loseNoOpenings(source.host)
        case .freezeStore: store?.thaw()
        }
        say("\(fault) is over")
    }
}
