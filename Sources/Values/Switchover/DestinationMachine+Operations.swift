/// The results of operations.
extension DestinationMachine {
    /// Handles prepared memory: every region is mapped.
    package mutating func memoryPrepared() -> [DestinationAction] {
        guard case .preparing = current else { return [] }
        current = isLinked ? .active : .awaiting
        return isLinked ? [.send(.ready)] : [.discardMemory]
    }

    /// Handles regions that do not fit here; another source may still connect.
    package mutating func memoryRefused(reason: String) -> [DestinationAction] {
        guard case .preparing = current else { return [] }
        current = .awaiting
        guard isLinked else { return [] }
        isLinked = false
        return [.send(.refused(reason: reason)), .closeLink(reason: reason)]
    }

    /// Handles loaded devices: the state of every device has loaded.
    package mutating func devicesLoaded() -> [DestinationAction] {
        guard case .loading(let ping) = current else { return [] }
        current = .loaded
        return [.send(.pong(ping))]
    }

    /// Handles a device whose state did not load.
    package mutating func deviceLoadFailed(device: String, reason: String) -> [DestinationAction] {
        guard case .loading = current else { return [] }
        isLinked = false
        return [.send(.devicesFailed(device: device, reason: reason)), .closeLink(reason: reason)]
            + fail(.loadFailed(device: device, reason: reason))
    }

    /// Handles finished hooks and held disk locks; without a lease, this is the commit point.
    package mutating func acquired() -> [DestinationAction] {
        guard case .acquiring(let grant) = current else { return [] }
        if isCancelAsked || prohibition != nil {
            let reason = isCancelAsked ? SwitchoverFailure.cancelled.description : prohibition ?? ""
            current = .undoing(grant, reason: reason, isCommitted: false)
            return [.undo(grant)]
        }
        current = usesLease ? .committing(grant) : .starting(grant)
        return [usesLease ? .commitLease(grant) : .start(grant)]
    }

    /// Handles a hook that failed, or a disk lock that could not be taken.
    package mutating func acquireFailed(reason: String) -> [DestinationAction] {
        guard case .acquiring(let grant) = current else { return [] }
        current = .undoing(grant, reason: reason, isCommitted: false)
        return [.undo(grant)]
    }

    /// Handles a lease record that names this side, started: this is the commit point.
    package mutating func leaseCommitted() -> [DestinationAction] {
        guard case .committing(let grant) = current else {
            // The source was promised, while the record was being written, that nothing starts.
            return strayLease.map { [.returnLease($0)] } ?? []
        }
        if let prohibition {
            // Starts were prohibited while the record was being written. Nothing has executed, so the record is
            // returned.
            current = .undoing(grant, reason: prohibition, isCommitted: true)
            return [.undo(grant)]
        }
        current = .starting(grant)
        return [.start(grant)]
    }

    /// Handles a lease that the source won, or a store that is unreachable and whose record was provably not written.
    package mutating func leaseRefused(reason: String) -> [DestinationAction] {
        guard case .committing(let grant) = current else {
            strayLease = nil
            return []
        }
        current = .undoing(grant, reason: reason, isCommitted: false)
        return [.undo(grant)]
    }

    /// Handles a started workload: it runs here.
    package mutating func started() -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .running(grant)
        isCancelAsked = false
        return (isLinked ? [.send(.running(grant.token))] : [])
            + answerCont(failure: nil)
            + (isCompletionDue ? [.proceed] : [])
    }

    /// Handles a workload that was started and exited by itself before its start was reported.
    ///
    /// The workload may have executed, so the start counts: the source never resumes the workload, and `cont` fails.
    package mutating func startEnded(reason: String) -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .running(grant)
        isCancelAsked = false
        let end = "the workload was started and has ended: \(reason)"
        endReason = end
        return (isLinked ? [.send(.running(grant.token))] : [])
            + answerCont(failure: end)
            + (isCompletionDue ? [.proceed] : [])
    }

    /// Handles a failed start that provably executed nothing.
    package mutating func startFailed(reason: String) -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .undoing(grant, reason: reason, isCommitted: usesLease)
        return [.undo(grant)]
    }

    /// Handles the end of `undo`: the promise that this token never starts can be given.
    package mutating func undone() -> [DestinationAction] {
        guard case .undoing(let grant, let reason, let isCommitted) = current else { return [] }
        if isCancelAsked {
            guard isCommitted else { return resign(grant.token) }
            strayLease = grant
            return resign(grant.token) + [.returnLease(grant)]
        }
        if isCommitted {
            current = .returning(grant, reason: reason)
            return [.returnLease(grant)]
        }
        return refuse(grant, reason: reason)
    }

    /// Handles a lease record that names the source again.
    package mutating func leaseReturned() -> [DestinationAction] {
        guard case .returning(let grant, let reason) = current else {
            strayLease = nil
            return []
        }
        return refuse(grant, reason: reason)
    }

    mutating func refuse(_ grant: RunGrant, reason: String) -> [DestinationAction] {
        refusals[grant.token] = reason
        current = .refused(grant.token, reason: reason, requested: false)
        // A source that has just rejoined learns of the refusal now, before it repeats RUN.
        isRejoining = false
        return (isLinked ? [.send(.startFailed(grant.token, reason: reason))] : [])
            + answerCont(failure: "cannot start the workload: \(reason)")
    }

    /// Handles the last page: every page of every region is placed.
    package mutating func allPagesResident() -> [DestinationAction] {
        allResident = true
        return completeIfDue()
    }

    private var isCompletionDue: Bool {
        guard case .running = current else { return false }
        return allResident && !isRejoining && (completeCame || !isLinked)
    }

    mutating func completeIfDue() -> [DestinationAction] {
        guard isCompletionDue, case .running(let grant) = current else { return [] }
        current = .completed(grant, saidBye: false)
        return isLinked ? [.send(.completeAck)] : []
    }
}
