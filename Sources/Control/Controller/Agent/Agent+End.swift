import Guest
import Identity
import LinuxSystem
import Logging
import RunLease
import Switchover

/// The orderly exit of an agent.
extension Agent {
    /// The state in which the workload is left when its agent exits.
    private enum LastStop: Sendable {
        /// The workload is stopped, and does not start here again.
        case stopped
        /// The workload continues without its agent, and keeps the lease.
        case outlives(reason: String)
        /// The workload may continue to run, here or at a destination, for this reason.
        case mayRun(reason: String)
        /// The agent has no workload, or the workload has moved away.
        case absent
    }

    /// Stops a workload that cannot outlive this process, and releases its run lease, so that it can start elsewhere.
    ///
    /// Call this once ``outcome()`` has returned, before the process exits. Commands that do not end within 1 s fail.
    /// Without a run lease, the workload is not stopped. If the store or the workload does not answer, this call takes
    /// up to 1.5 times the lease's patience, and the log has the remedy.
    ///
    /// - Returns: false if the lease is not released, unless the workload outlives its agent.
    @discardableResult
    package func end() async -> Bool {
        isQuitting = true
        sink.release()
        await waiting.end(within: .seconds(1))
        if let workload = await workload, workload.activity.isRunning, workload.endsWithAgent {
            logger.notice("\(workload.name) ends here, together with this agent")
        }
        guard let lease else { return true }
        // The stop may never end: a thread of the workload may wait for a page that never arrives.
        let limit = Duration.seconds(lease.patience / 2)
        do {
            switch await within(limit, { [self] in await stopForGood() }) {
            case .absent: break
            case .stopped:
                try await onThread("release") { try lease.release(forGood: true) }
                logger.info("the run lease '\(lease.workload)' is released")
            case .outlives(let reason): logger.error("\(lease.notReleased(reason))")
            case .mayRun(let reason):
                logger.error("\(lease.notReleased(reason))")
                return false
            case nil:
                logger.error("\(lease.notReleased("the workload has not stopped within \(limit.text)"))")
                return false
            }
            return true
        } catch {
            logger.error("\(error)")
            return false
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
                    // After RUN the destination may start the workload. Otherwise it has moved away, or there never was
                    // one.
                    guard let state = await outgoing?.snapshot().state, state != .completed else { return .absent }
                    let reason = state.isEnd ? "\(refusal)" : "a migration is under way: \(state.rawValue)"
                    return .mayRun(reason: reason)
                }
                let hasEndedItself = await workloadEnd != nil
                guard workload.endsWithAgent || hasEndedItself && workload.isGone else {
                    return .outlives(reason: "\(workload.name) continues to run without this agent")
                }
                hasEnded = true
                try await onThread("end") { if workload.activity.isRunning { try workload.stop() } }
                return .stopped
            }
        } catch {
            return .mayRun(reason: "\(error)")
        }
    }

    /// The workload that only this agent may run now; a workload whose resume has failed is one.
    private func ownWorkloadHere() async -> Result<any Workload, CommandRefused> {
        if let outgoing, let ownWorkload, await outgoing.snapshot().isHeld { return .success(ownWorkload) }
        return await ownership()
    }
}

/// Waits for work, but no longer than a limit.
///
/// - Parameters:
///   - limit: the longest wait.
///   - work: continues after the limit; its result is then dropped.
/// - Returns: the result of the work; nil if the limit passed first.
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
