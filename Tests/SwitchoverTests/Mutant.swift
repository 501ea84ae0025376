import Switchover
import Testing

/// The machines that ship with one thing broken on purpose, and the property that does not survive it.
struct Mutant: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// Each of these stops holding.
    let breaks: [Property]
    let behaviour: Behaviour

    static let all = sourceMutants + destinationMutants

    private init(
        _ testDescription: String,
        breaks: Property...,
        source: @escaping Behaviour.Source = Behaviour.shipped.source,
        destination: @escaping Behaviour.Destination = Behaviour.shipped.destination
    ) {
        self.testDescription = testDescription
        self.breaks = breaks
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

    private static let destinationMutants = [
        Mutant(
            "a destination that answers PONG while devices load",
            breaks: .devicesBeforeRun,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard case .received(.ping) = event else { return actions }
                return actions + Behaviour.shipped.destination(&machine, .ended(.loadDevices, succeeded: true))
            }
        ),
        Mutant(
            "a destination that starts without RUN once devices have loaded",
            breaks: .neverBothRun,
            .devicesBeforeRun,
            .machinesKnow,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                guard event == .ended(.loadDevices, succeeded: true), machine.state == .postcopyDevice else {
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
            "a destination that keeps a refused start to itself",
            breaks: .noDeadEnd,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                return event == .ended(.undo, succeeded: true) ? [] : actions
            }
        ),
        Mutant(
            "a destination whose cont succeeds at once",
            breaks: .contTellsTheTruth,
            destination: { machine, event in
                let actions = Behaviour.shipped.destination(&machine, event)
                return event == .cont ? [.contSucceeded] + actions : actions
            }
        ),
    ]
}
