/// The ends of operations.
extension DestinationMachine {
    /// The memory for all regions is there.
    public mutating func memoryPrepared() -> [DestinationAction] {
        guard case .preparing = current else { return [] }
        current = isLinked ? .active : .awaiting
        return isLinked ? [.send(.ready)] : [.discardMemory]
    }

    /// The regions cannot be had here.
    ///
    /// Another source may still come.
    public mutating func memoryRefused(reason: String) -> [DestinationAction] {
        guard case .preparing = current else { return [] }
        current = .awaiting
        guard isLinked else { return [] }
        isLinked = false
        return [.send(.refused(reason: reason)), .closeLink(reason: reason)]
    }

    /// The state of every device has loaded.
    public mutating func devicesLoaded() -> [DestinationAction] {
        guard case .loading(let ping) = current else { return [] }
        current = .loaded
        return [.send(.pong(ping))]
    }

    /// A device did not load.
    public mutating func deviceLoadFailed(device: String, reason: String) -> [DestinationAction] {
        guard case .loading = current else { return [] }
        isLinked = false
        return [.send(.devicesFailed(device: device, reason: reason)), .closeLink(reason: reason)]
            + fail(.loadFailed(device: device, reason: reason))
    }

    /// Hooks and disk locks are done.
    ///
    /// Without a lease, the commit point is passed here.
    public mutating func acquired() -> [DestinationAction] {
        guard case .acquiring(let grant) = current else { return [] }
        if isCancelAsked || prohibition != nil {
            let reason = isCancelAsked ? SwitchoverFailure.cancelled.description : prohibition ?? ""
            current = .undoing(grant, reason: reason, isCommitted: false)
            return [.undo(grant)]
        }
        current = usesLease ? .committing(grant) : .starting(grant)
        return [usesLease ? .commitLease(grant) : .start(grant)]
    }

    /// A hook failed or a disk lock could not be taken.
    public mutating func acquireFailed(reason: String) -> [DestinationAction] {
        guard case .acquiring(let grant) = current else { return [] }
        current = .undoing(grant, reason: reason, isCommitted: false)
        return [.undo(grant)]
    }

    /// The lease's record names this side, started.
    ///
    /// The commit point is passed here.
    public mutating func leaseCommitted() -> [DestinationAction] {
        guard case .committing(let grant) = current else {
            // The source was promised meanwhile that nothing starts.
            return strayLease.map { [.returnLease($0)] } ?? []
        }
        if let prohibition {
            // The record was written meanwhile. Nothing has executed, so that it is given back.
            current = .undoing(grant, reason: prohibition, isCommitted: true)
            return [.undo(grant)]
        }
        current = .starting(grant)
        return [.start(grant)]
    }

    /// The lease was lost to the source, or cannot be reached and was provably not written.
    public mutating func leaseRefused(reason: String) -> [DestinationAction] {
        guard case .committing(let grant) = current else {
            strayLease = nil
            return []
        }
        current = .undoing(grant, reason: reason, isCommitted: false)
        return [.undo(grant)]
    }

    /// The workload runs.
    public mutating func started() -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .running(grant)
        isCancelAsked = false
        return (isLinked ? [.send(.running(grant.token))] : [])
            + answerCont(failure: nil)
            + (isCompletionDue ? [.proceed] : [])
    }

    /// The workload was started and has ended by itself before its start was over.
    ///
    /// It may have executed, so that the start counts: the source never gets the workload back, and `cont` fails.
    public mutating func startEnded(reason: String) -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .running(grant)
        isCancelAsked = false
        let end = "the workload was started and has ended: \(reason)"
        endReason = end
        return (isLinked ? [.send(.running(grant.token))] : [])
            + answerCont(failure: end)
            + (isCompletionDue ? [.proceed] : [])
    }

    /// The start failed and provably executed nothing.
    public mutating func startFailed(reason: String) -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .undoing(grant, reason: reason, isCommitted: usesLease)
        return [.undo(grant)]
    }

    /// What `acquire` did is undone: the promise that this token never starts can be given.
    public mutating func undone() -> [DestinationAction] {
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

    /// The lease's record names the source again.
    public mutating func leaseReturned() -> [DestinationAction] {
        guard case .returning(let grant, let reason) = current else {
            strayLease = nil
            return []
        }
        return refuse(grant, reason: reason)
    }

    mutating func refuse(_ grant: RunGrant, reason: String) -> [DestinationAction] {
        refusals[grant.token] = reason
        current = .refused(grant.token, reason: reason, requested: false)
        // A source that has just rejoined hears of it now, before it repeats RUN.
        isRejoining = false
        return (isLinked ? [.send(.startFailed(grant.token, reason: reason))] : [])
            + answerCont(failure: "cannot start the workload: \(reason)")
    }

    /// Every page of every region was placed.
    public mutating func allPagesResident() -> [DestinationAction] {
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
