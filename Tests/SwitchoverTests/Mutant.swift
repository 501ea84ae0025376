import Identity
import Switchover
import Testing

/// The shipped machines and drivers with one rule broken on purpose, and the properties that this breaks.
struct Mutant: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// The properties that no longer hold.
    let breaks: [Property]
    let setting: World.Setting
    let behaviour: Behaviour
    let driver: Driver

    static let all = sourceMutants + destinationMutants + driverMutants

    private init(
        _ testDescription: String,
        breaks: Property...,
        in setting: World.Setting = World.Setting(conts: 0, cancels: 0),
        source: @escaping Behaviour.Source = Behaviour.shipped.source,
        destination: @escaping Behaviour.Destination = Behaviour.shipped.destination,
        driver change: (inout Driver) -> Void = { _ in }
    ) {
        var driver = Driver()
        change(&driver)
        self.driver = driver
        self.testDescription = testDescription
        self.breaks = breaks
        self.setting = setting
        behaviour = Behaviour(source: source, destination: destination)
    }

    private static let sourceMutants = [
        Mutant(
            "a source that sends RUN before PONG",
            breaks: .neverBothRun,
            .everyMessageIsExpected,
            .devicesBeforeRun,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                let isSaved = actions.contains(.send(.devices))
                return isSaved ? actions + [.send(.run(fresh))] : actions
            }
        ),
        Mutant(
            "a source that sends RUN while it holds its disk locks",
            breaks: .locksAreFreeBeforeRun,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                return actions == [.releaseLocks] ? [.send(.run(fresh)), .releaseLocks] : actions
            }
        ),
        Mutant(
            "a source that resumes when the link breaks after RUN",
            breaks: .neverBothRun,
            .newestStateRuns,
            source: { machine, event, fresh in
                let isRunOut = machine.state == .postcopyActive
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                return event == .linkLost && isRunOut ? actions + [.resume] : actions
            }
        ),
        Mutant(
            "a source that misses a broken link while it stops and saves",
            breaks: .takeBack,
            .noDeadEnd,
            source: { machine, event, fresh in
                if event == .linkLost, [.active, .device].contains(machine.state), !machine.isWorkloadHere {
                    return []
                }
                return Behaviour.shipped.source(&machine, event, fresh)
            }
        ),
        Mutant(
            "a source that does not ask the lease when the link breaks after RUN",
            breaks: .neverBothRun,
            .newestStateRuns,
            in: leased,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                guard case .seizeLease? = actions.first else { return actions }
                return machine.leaseTaken()
            }
        ),
        Mutant(
            "a source that resumes although the lease names the destination",
            breaks: .neverBothRun,
            in: leased,
            source: { machine, event, fresh in
                guard event == .ended(.seizeDecided(false), .failure) else {
                    return Behaviour.shipped.source(&machine, event, fresh)
                }
                return machine.leaseTaken()
            }
        ),
        Mutant(
            "a source that takes CANCEL for CANCELLED",
            breaks: .neverBothRun,
            .cancelTellsTheTruth,
            in: cancels,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                guard event == .cancel, case .send(.cancel(let token))? = actions.first else { return actions }
                return actions + [.cancelSucceeded]
                    + Behaviour.shipped.source(&machine, .received(.cancelled(token)), fresh)
            }
        ),
        Mutant(
            "a source that grants anew instead of repeating its RUN",
            breaks: .everyMessageIsExpected,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                guard case .ended(.resync, .success) = event else { return actions }
                return actions.map { if case .send(.run) = $0 { .send(.run(fresh)) } else { $0 } }
            }
        ),
        Mutant(
            "a source that cancels over a new link, and does not say that every page is there",
            breaks: .noDeadEnd,
            in: cancels,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                guard case .ended(.resync, .success) = event, case .send(.cancel)? = actions.first else {
                    return actions
                }
                return actions.filter { $0 != .send(.complete) }
            }
        ),
        Mutant(
            "a source that does not report that it took the workload back",
            breaks: .noDeadEnd,
            source: { machine, event, fresh in
                Behaviour.shipped.source(&machine, event, fresh).filter { action in
                    if case .redial = action { false } else { true }
                }
            }
        ),
        Mutant(
            "a source that does not act on START_FAILED",
            breaks: .takeBack,
            source: { machine, event, fresh in
                if case .received(.startFailed) = event { return [] }
                return Behaviour.shipped.source(&machine, event, fresh)
            }
        ),
        Mutant(
            "a source that takes RUNNING for COMPLETE_ACK",
            breaks: .completedIsComplete,
            source: { machine, event, fresh in
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                guard case .received(.running) = event else { return actions }
                return actions + Behaviour.shipped.source(&machine, .received(.completeAck), fresh)
            }
        ),
    ]

    private static let leased = World.Setting(usesLease: true, conts: 0, cancels: 0)
    private static let cancels = World.Setting(conts: 0)
    private static let leasedCancels = World.Setting(usesLease: true, conts: 0)

    private static let destinationMutants = [
        Mutant(
            "a destination that starts before the lease is won",
            breaks: .neverBothRun,
            .leaseNamesRunner,
            in: leased,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .commitLease(let grant)? = actions.first else { return actions }
                return actions + [.start(grant)]
            }
        ),
        Mutant(
            "a destination that starts although the lease was lost",
            breaks: .neverBothRun,
            in: leased,
            destination: { machine, event in
                guard event == .ended(.commitDecided(false), .failure) else {
                    return Behaviour.shipped.destination(&machine, event)
                }
                return Behaviour.shipped.destination(&machine, .ended(.commitDecided(true), .success))
            }
        ),
        Mutant(
            "a destination that promises on CANCEL while it starts",
            breaks: .neverBothRun,
            .promiseHolds,
            in: cancels,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .received(.cancel(let token)) = event, machine.isCommitted else { return actions }
                return [.send(.cancelled(token))]
            }
        ),
        Mutant(
            "a destination that continues a start after CANCEL",
            breaks: .noDeadEnd,
            in: cancels,
            destination: { machine, event in
                if case .received(.cancel(let token)) = event, token != RunToken.none { return [] }
                return Behaviour.shipped.destination(&machine, event)
            }
        ),
        Mutant(
            "a destination that answers PONG while devices load",
            breaks: .devicesBeforeRun,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .received(.ping) = event else { return actions }
                return actions + Behaviour.shipped.destination(&machine, .ended(.loadDevices, .success))
            }
        ),
        Mutant(
            "a destination that starts without RUN once devices have loaded",
            breaks: .neverBothRun,
            .devicesBeforeRun,
            .machinesKnow,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard event == .ended(.loadDevices, .success), machine.state == .postcopyDevice else {
                    return actions
                }
                return actions + [.start(RunGrant(token: RunToken(1), epoch: 0))]
            }
        ),
        Mutant(
            "a destination that answers RUNNING before the commit point",
            breaks: .runningIsTrue,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .received(.run(let grant)) = event else { return actions }
                return actions + [.send(.running(grant.token))]
            }
        ),
        Mutant(
            "a destination that answers START_FAILED while it still starts",
            breaks: .neverBothRun,
            .promiseHolds,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .received(.run(let grant)) = event else { return actions }
                return actions + [.send(.startFailed(grant.token, reason: "slow"))]
            }
        ),
        Mutant(
            "a destination that promises before its hooks are undone",
            breaks: .undoneBeforePromise,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .undo(let grant)? = actions.first else { return actions }
                return [.send(.startFailed(grant.token, reason: "locked"))] + actions
            }
        ),
        Mutant(
            "a destination that does not report a refused start",
            breaks: .noDeadEnd,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                return event == .ended(.undo, .success) ? [] : actions
            }
        ),
        Mutant(
            "a destination whose cont succeeds at once",
            breaks: .contTellsTheTruth,
            in: World.Setting(cancels: 0),
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                return event == .cont ? [.contSucceeded] + actions : actions
            }
        ),
    ]

    private static let driverMutants = [
        Mutant(
            "a source that takes late lanes of an earlier link for those of the present link",
            breaks: .linksAreTold,
            in: World.Setting(conts: 0, cancels: 0, relinks: 2),
            driver: { $0.checksLinks = false }
        ),
        Mutant(
            "an operator who removes the records of a dead agent, and a commit that follows any record",
            breaks: .neverBothRun,
            .leaseNamesRunner,
            in: World.Setting(startsStopped: true, usesLease: true, cancels: 0, relinks: 0, thirds: 1),
            driver: {
                $0.takesOver = false
                $0.checksOwner = false
            }
        ),
        Mutant(
            "a lease that is taken over from the destination while the source may hold a promise",
            breaks: .neverBothRun,
            in: World.Setting(usesLease: true, conts: 0, relinks: 0, thirds: 1),
            driver: { $0.takesOverFromBoth = false }
        ),
        Mutant(
            "a source that takes any owner's record while another such attempt is under way",
            breaks: .leaseNamesRunner,
            in: World.Setting(policy: .wait, usesLease: true, relinks: 0, thirds: 1),
            source: { machine, event, fresh in
                // A cancel during an attempt begins a second one.
                let wasRegaining = machine.isRegainingLease
                let actions = Behaviour.shipped.source(&machine, event, fresh)
                guard event == .cancel, wasRegaining else { return actions }
                return actions + [.regainLease(RunToken(1))]
            },
            driver: { $0.regainsOnlyWhatWasPromised = false }
        ),
        Mutant(
            "a destination that makes room for another migration while its commit is being written",
            breaks: .leaseComesHome,
            in: World.Setting(usesLease: true, conts: 0, relinks: 0, thirds: 1),
            driver: {
                $0.staysForStore = false
                $0.followsPromises = false
            }
        ),
        Mutant(
            "a source that cannot follow the record of a destination that has promised and died",
            breaks: .leaseComesHome,
            in: World.Setting(usesLease: true, conts: 0, relinks: 0),
            driver: { $0.followsPromises = false }
        ),
        Mutant(
            "a destination that forgets a migration before its source has sent BYE",
            breaks: .isRemembered,
            in: World.Setting(conts: 0, cancels: 0, thirds: 1),
            driver: { $0.remembersMigrations = false }
        ),
        Mutant(
            "a destination that exits although its source has not sent BYE",
            breaks: .endIsPolite,
            in: World.Setting(conts: 0, cancels: 0, ends: 1),
            driver: { $0.endsAfterBye = false }
        ),
        Mutant(
            "a destination that counts a failed undo as done",
            breaks: .undoneBeforePromise,
            in: World.Setting(conts: 0, cancels: 0, hangs: true),
            driver: { $0.repeatsUndo = false }
        ),
        Mutant(
            "a source that counts a failed release of its locks as done",
            breaks: .locksAreFreeBeforeRun,
            driver: { $0.reportsFailedRelease = false }
        ),
        Mutant(
            "a source that sends RUN although its process has hung up, and resumes by itself",
            breaks: .neverBothRun,
            in: World.Setting(conts: 0, cancels: 0, attaches: true),
            driver: { $0.noticesHangUp = false }
        ),
        Mutant(
            "a destination that counts a start whose workload has ended as one that runs",
            breaks: .contTellsTheTruth,
            in: World.Setting(cancels: 0, diesStarting: true),
            driver: { $0.reportsDeadStart = false }
        ),
        Mutant(
            "a source that never asks a lease again that was unreachable once",
            breaks: .noDeadEnd,
            in: World.Setting(usesLease: true, conts: 0, cancels: 0, relinks: 0),
            driver: { $0.asksLeaseAgain = false }
        ),
        Mutant(
            "a source that lets a cancel wait as long as a start hangs",
            breaks: .noDeadEnd,
            in: World.Setting(conts: 0, relinks: 0, hangs: true),
            driver: { $0.answersOverdueCancel = false }
        ),
    ]
}
