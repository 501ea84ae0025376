import Guest
import Logging
import Switchover

/// The orderly end of an agent.
extension Agent {
    /// What has become of the workload when its agent ends.
    private enum LastStop: Sendable {
        /// The workload executes nothing, and starts here no more.
        case stopped
        /// The workload may run on, and why.
        case runsOn(reason: String)
        /// There is none, or it has moved away.
        case absent
    }

    /// Stops the workload that cannot outlive this process, and releases its run lease: the next start needs no word of
    /// the operator.
    ///
    /// To be called once ``outcome()`` has returned, before the process exits. Without a run lease there is nothing to do.
    /// A store or a workload that does not answer delays the end for a bounded time, and is logged with the remedy.
    public func end() async {
        isQuitting = true
        guard let lease else { return }
        // A thread of the workload may wait for a page that never comes.
        let limit = lease.patience / 2
        do {
            switch await within(.seconds(limit), { [self] in await stopForGood() }) {
            case .absent: break
            case .stopped:
                try await onThread("release") { try lease.release(forGood: true) }
                logger.info("the run lease '\(lease.workload)' is released")
            case .runsOn(let reason): logger.error("\(lease.notReleased(reason))")
            case nil: logger.error("\(lease.notReleased("the workload has not stopped within \(limit) s"))")
            }
        } catch {
            logger.error("\(error)")
        }
    }

    private func stopForGood() async -> LastStop {
        await outgoing?.cancelBeforeRun()
        do {
            return try await exclusively("the end") {
                let workload: any Workload
                switch await ownWorkloadHere() {
                case .success(let own): workload = own
                case .failure(let refusal):
                    // After RUN the destination may start the workload. What has moved, or never came, is not here.
                    guard let outgoing, await outgoing.snapshot().state != .completed else { return .absent }
                    return .runsOn(reason: "\(refusal)")
                }
                let hasEndedItself = await workloadEnd != nil
                guard workload.endsWithAgent || hasEndedItself else {
                    return .runsOn(reason: "\(workload.description.name) can run on without this agent")
                }
                hasEnded = true
                try await onThread("end") { if workload.activity.isRunning { try workload.stop() } }
                return .stopped
            }
        } catch {
            return .runsOn(reason: "\(error)")
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
/// - Returns: what the work has come to; nil if it is not done, and goes on.
private func within<Value: Sendable>(
    _ limit: Duration,
    _ work: @escaping @Sendable () async -> Value
) async -> Value? {
    let (ends, end) = AsyncStream.makeStream(of: Value?.self)
    Task { end.yield(await work()) }
    let timer = Task {
        await rest(for: limit)
        end.yield(nil)
    }
    defer { timer.cancel() }
    for await value in ends { return value }
    return nil
}
