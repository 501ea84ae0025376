import Guest
import Logging
import Switchover

/// The orderly end of an agent.
extension Agent {
    /// Stops the workload that cannot outlive this process, and releases its run lease: the next start needs no word of
    /// the operator.
    ///
    /// To be called once ``outcome()`` has returned, before the process exits. Without a run lease there is nothing to do.
    /// A store or a workload that does not answer delays the end for a bounded time, and is logged with the remedy.
    public func end() async {
        isQuitting = true
        guard let lease else { return }
        let limit = 2 * lease.patience
        let isDone = await within(.seconds(limit)) { [self, logger] in
            do {
                try await endWorkload(lease)
            } catch {
                logger.error("\(error)")
            }
        }
        if !isDone { logger.error("\(lease.notReleased("the workload has not stopped within \(limit) s"))") }
    }

    private func endWorkload(_ lease: WorkloadLease) async throws {
        await outgoing?.cancelBeforeRun()
        try await exclusively("the end") {
            let workload: any Workload
            switch await ownWorkloadHere() {
            case .success(let own): workload = own
            case .failure(let refusal):
                // After RUN the destination may start the workload. What has moved, or never came, is not this agent's.
                guard let outgoing, await outgoing.snapshot().state != .completed else { return }
                throw CommandRefused(reason: lease.notReleased("\(refusal)"))
            }
            let hasEndedItself = await workloadEnd != nil
            guard workload.endsWithAgent || hasEndedItself else {
                throw CommandRefused(
                    reason: lease.notReleased("\(workload.description.name) can run on without this agent")
                )
            }
            hasEnded = true
            try await onThread("end") { [logger] in
                do {
                    if workload.activity.isRunning { try workload.stop() }
                } catch {
                    throw CommandRefused(reason: lease.notReleased("\(error)"))
                }
                try lease.release(forGood: true)
                logger.info("the run lease '\(lease.workload)' is released")
            }
        }
    }

    /// The workload that nobody but this agent may run now, also one that could not resume.
    private func ownWorkloadHere() async -> Result<any Workload, CommandRefused> {
        if let outgoing, let ownWorkload, await outgoing.snapshot().isHeld { return .success(ownWorkload) }
        return await ownership()
    }
}

/// Waits for work, but no longer than a limit.
///
/// - Returns: whether the work is done; if not, its task goes on.
private func within(_ limit: Duration, _ work: @escaping @Sendable () async -> Void) async -> Bool {
    let (ends, end) = AsyncStream.makeStream(of: Bool.self)
    Task {
        await work()
        end.yield(true)
    }
    let timer = Task {
        await rest(for: limit)
        end.yield(false)
    }
    defer { timer.cancel() }
    for await isDone in ends { return isDone }
    return false
}
