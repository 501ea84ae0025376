import Foundation
package import Identity
import LinuxSystem
package import PageProtocol
import Synchronization

/// Why a run lease is not taken or released, and what to do about it.
package struct LeaseRefused: Error, Equatable, CustomStringConvertible {
    package let reason: String
    package var description: String { reason }

    package init(reason: String) {
        self.reason = reason
    }
}

/// The run lease of one workload, as one agent sees it.
///
/// Calls block for as long as the store takes, unless their documentation gives a limit. Copies of the value share what
/// the agent knows.
package struct WorkloadLease: Sendable {
    /// The store of the lease's records.
    package let store: any RunLeaseStore
    /// The workload's name in the store.
    package let workload: String
    /// The agent's instance id, as 32 hexadecimal digits.
    package let instance: String
    /// The longest wait for the store in a call on which a command or the workload depends, in seconds.
    package let patience: Double

    private let knowledge = Knowledge()

    /// The knowledge that all copies of an agent's lease share.
    private final class Knowledge: Sendable {
        /// Promises of destinations that they never start by a record's token.
        let promises = Mutex<Set<Promise>>([])
        /// Locked during each step that reads the newest record and then writes.
        ///
        /// The value is whether the lease was released for good.
        let turn = Mutex<Bool>(false)
        /// The newest epoch that this agent has written; 0 for none.
        let epoch = Atomic<UInt64>(0)
        /// The number of times that another agent's record refused the lease.
        let refusals = Atomic<Int>(0)

        /// The taking of a record that this agent has written.
        func taken(_ epoch: UInt64) -> Taking {
            self.epoch.store(epoch, ordering: .relaxed)
            return .taken(epoch: epoch)
        }

        /// The refusal of the lease by another agent's record.
        func refused(_ reason: String) -> Taking {
            refusals.add(1, ordering: .relaxed)
            return .refused(reason: reason)
        }
    }

    /// The newest epoch of which this agent knows that it has written it; 0 for none.
    package var newestEpoch: UInt64 { knowledge.epoch.load(ordering: .relaxed) }

    /// The number of times that another agent's record has refused the lease.
    package var refusals: Int { knowledge.refusals.load(ordering: .relaxed) }

    private struct Promise: Hashable {
        let token: RunToken
        let owner: String
    }

    /// Makes an agent's view of the lease; nothing is read or written yet.
    ///
    /// - Parameters:
    ///   - store: the store of the records.
    ///   - workload: the workload's name in the store.
    ///   - instance: the agent's instance id, as 32 hexadecimal digits.
    ///   - patience: the longest wait for the store, in seconds.
    package init(store: any RunLeaseStore, workload: String, instance: String, patience: Double = 10) {
        self.store = store
        self.workload = workload
        self.instance = instance
        self.patience = patience
    }

    /// The outcome of an attempt to take the lease.
    package enum Taking: Sendable, Equatable {
        case taken(epoch: UInt64)
        case refused(reason: String)
        /// The store cannot be reached.
        ///
        /// No record was written, except perhaps by a call whose deadline has passed.
        case unreachable(reason: String)
    }

    /// The lease claim of HELLO in a migration that began at an epoch.
    package func claim(from epoch: UInt64) -> LeaseClaim {
        .files(epoch: epoch, store: store.name, workload: workload)
    }

    /// Records a destination's promise never to start by a token: another record may then follow its record of that
    /// token.
    package func notePromise(token: RunToken, from destination: String) {
        knowledge.promises.withLock { _ = $0.insert(Promise(token: token, owner: destination)) }
    }

    private func isPromised(_ record: LeaseRecord) -> Bool {
        let promise = Promise(token: record.token, owner: record.owner)
        return record.standing == .holding && knowledge.promises.withLock { $0.contains(promise) }
    }

    /// Takes the lease for a workload that starts here or is about to move, unless another agent holds it.
    ///
    /// Waits at most ``patience``. If `isStart` and this call has thrown, a record that the store writes later would
    /// claim a start that never happens; such a record is released as soon as the store answers. If the process exits
    /// before that, the record stays, and the error names the remedy. For a workload that already runs here a late
    /// record is true, and stays.
    ///
    /// - Parameter isStart: whether the workload is to start by the record.
    /// - Returns: the epoch of this agent's record.
    /// - Throws: ``LeaseRefused`` or `RunLeaseError` with the reason why the lease is not taken.
    package func begin(isStart: Bool) throws -> UInt64 {
        let deadline = MonotonicClock.now() + nanoseconds(patience / 2)
        let outcome: Result<UInt64, any Error>
        do throws(LeaseRefused) {
            outcome = try answer {
                Result { try take(before: deadline) }
            } late: { outcome in
                if isStart, case .success(let epoch) = outcome { releaseUnused(epoch) }
            }
        } catch {
            guard isStart else { throw error }
            let remedy = "if a later start finds the lease held by this one: \(takeCommand(for: [instance]))"
            throw LeaseRefused(reason: "\(error.reason); \(remedy)")
        }
        return try outcome.get()
    }

    /// Releases the record of a start that was given up before the record was written, unless a newer record exists.
    private func releaseUnused(_ epoch: UInt64) {
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                return try knowledge.turn.withLock { _ throws(RunLeaseError) in
                    guard let newest = try store.newest(workload), newest.epoch == epoch, newest.owner == instance
                    else {
                        return
                    }
                    _ = try store.propose(try newest.release(), following: newest, for: workload)
                }
            } catch {
                // If the store never answers, the error of the start has already named the remedy.
                WorkloadLease.rest(&pause)
            }
        }
    }

    private func take(before deadline: UInt64) throws -> UInt64 {
        let newest = try store.newest(workload)
        if let newest, newest.owner == instance, newest.standing != .released {
            knowledge.epoch.store(newest.epoch, ordering: .relaxed)
            return newest.epoch
        }
        if let newest, newest.standing != .released, !isPromised(newest) {
            knowledge.refusals.add(1, ordering: .relaxed)
            throw LeaseRefused(reason: "\(describe(newest)); \(try remedy(for: newest))")
        }
        let record = try record(started: true, following: newest)
        // `release` fails only if no epoch follows; the owner of such a last record could never release it.
        guard (try? record.release()) != nil else { throw LeaseRefused(reason: exhaustion(after: record.epoch)) }
        switch take(record, following: newest, until: deadline) {
        case .taken(let epoch): return epoch
        case .refused(let reason), .unreachable(let reason): throw LeaseRefused(reason: reason)
        }
    }

    /// This agent's record that follows the newest one, or the first record.
    private func record(started: Bool, following newest: LeaseRecord?) throws(RunLeaseError) -> LeaseRecord {
        try newest?.next(owner: instance, started: started)
            ?? LeaseRecord(epoch: 1, owner: instance, started: started)
    }

    /// Takes the lease for a RUN, by a record that follows the one RUN names.
    ///
    /// If the store's answer to a write is lost, the write is repeated without limit.
    ///
    /// - Parameters:
    ///   - epoch: the epoch that RUN names; any value, since it comes from a peer.
    ///   - token: the token of RUN.
    ///   - source: the instance that sent RUN, as 32 hexadecimal digits. If the epoch's record has another owner, the
    ///     lease is refused: the records were removed and have begun anew.
    package func take(after epoch: UInt64, token: RunToken, from source: String) -> Taking {
        take(after: epoch, token: token, from: source, until: nil)
    }

    private func take(after epoch: UInt64, token: RunToken, from source: String, until deadline: UInt64?) -> Taking {
        do throws(RunLeaseError) {
            guard let predecessor = try store.record(of: epoch, for: workload) else {
                return .refused(reason: "RUN names epoch \(epoch) of the run lease '\(workload)', which has no record")
            }
            guard predecessor.owner == source else {
                return knowledge.refused(
                    "RUN names epoch \(epoch) of the run lease '\(workload)' as the record of \(source), but "
                        + predecessor.sentence
                )
            }
            guard token != .none else { return .refused(reason: "RUN has token 0, which stands for no RUN") }
            let record = try predecessor.next(owner: instance, token: token, started: true)
            // The epoch after next must exist as well: it returns the lease if the start executes nothing.
            _ = try record.release()
            return take(record, following: predecessor, until: deadline)
        } catch {
            return .unreachable(reason: "\(error)")
        }
    }

    private func take(_ record: LeaseRecord, following predecessor: LeaseRecord?, until deadline: UInt64?) -> Taking {
        var pause = WorkloadLease.firstPause
        var mayBeWritten = false
        while true {
            do throws(RunLeaseError) {
                let newest: LeaseRecord
                switch try store.propose(record, following: predecessor, for: workload) {
                case .won where !mayBeWritten: return knowledge.taken(record.epoch)
                // An earlier call wrote the record, so another record may have followed since.
                case .won: newest = try store.newest(workload) ?? record
                case .lost(let other): newest = other
                }
                // An earlier call wrote the record without getting an answer, or a destination that executed nothing
                // gave it back.
                if newest == record || isGivenBack(newest, after: predecessor, token: record.token) {
                    return knowledge.taken(newest.epoch)
                }
                return knowledge.refused(describe(newest))
            } catch {
                mayBeWritten = mayBeWritten || error.mayHaveBeenWritten
                let isLate = deadline.map { MonotonicClock.now() > $0 } ?? false
                guard mayBeWritten, !isLate else { return .unreachable(reason: "\(error)") }
            }
            WorkloadLease.rest(&pause)
        }
    }

    /// Whether a destination took the lease after the predecessor by this token, and gave it back to this agent.
    private func isGivenBack(_ record: LeaseRecord, after predecessor: LeaseRecord?, token: RunToken) -> Bool {
        guard record.standing == .givenBack, record.owner == instance, record.token == token else { return false }
        return record.epoch - (predecessor?.epoch ?? 0) == 2
    }

    /// Takes the lease back after this agent's record of an epoch, since the destination has not answered RUN.
    ///
    /// Waits at most ``patience``. A record that is written after that does no harm: the destination can then no longer
    /// take the lease.
    ///
    /// - Parameters:
    ///   - epoch: the epoch of this agent's record, which RUN named.
    ///   - token: the token of RUN.
    package func seize(after epoch: UInt64, token: RunToken) -> Taking {
        // Retries take half of the time, so that the store's own error is reported if it has one.
        let deadline = MonotonicClock.now() + nanoseconds(patience / 2)
        do throws(LeaseRefused) {
            return try answer { seize(after: epoch, token: token, until: deadline) }
        } catch {
            return .unreachable(reason: error.reason)
        }
    }

    private func seize(after epoch: UInt64, token: RunToken, until deadline: UInt64) -> Taking {
        let taking = take(after: epoch, token: token, from: instance, until: deadline)
        guard case .refused = taking else { return taking }
        do throws(RunLeaseError) {
            // An operator has released this record, since the agent seemed gone: the RUN can no longer win.
            guard let newest = try store.newest(workload),
                try store.record(of: epoch, for: workload)?.release() == newest, newest.owner == instance
            else { return taking }
            let record = try newest.next(owner: instance, token: token, started: true)
            return take(record, following: newest, until: deadline)
        } catch {
            return .unreachable(reason: "\(error)")
        }
    }

    /// Runs a question to the store on a thread of its own, since a file system whose server is gone can block forever.
    ///
    /// The thread outlives the timeout. Its late answer is dropped, but a record that it wrote stays.
    ///
    /// - Parameters:
    ///   - ask: calls the store.
    ///   - late: called with an answer that came too late, on the thread that asked.
    /// - Returns: the answer.
    /// - Throws: ``LeaseRefused`` if the store does not answer within ``patience``, or the kernel refuses a
    ///   descriptor.
    private func answer<Value: Sendable>(
        _ ask: @escaping @Sendable () -> Value,
        late: @escaping @Sendable (Value) -> Void = { _ in }
    ) throws(LeaseRefused) -> Value {
        let answer: Answer<Value>
        do throws(SystemError) { answer = try Answer() } catch { throw LeaseRefused(reason: "\(error)") }
        Thread.detachNewThread {
            let value = ask()
            let isLate = answer.state.withLock { state in
                state.value = value
                return state.isGivenUp
            }
            if isLate { late(value) } else { answer.came.raise() }
        }
        _ = answer.came.wait(seconds: patience)
        let value = answer.state.withLock { state in
            state.isGivenUp = true
            return state.value
        }
        guard let value else { throw LeaseRefused(reason: silence) }
        return value
    }

    private final class Answer<Value: Sendable>: Sendable {
        let state = Mutex<(value: Value?, isGivenUp: Bool)>((nil, false))
        /// Not a Dispatch semaphore, which times out by the wall clock: an operator may set that clock meanwhile.
        let came: EventDescriptor

        init() throws(SystemError) {
            came = try EventDescriptor()
        }
    }

    private var silence: String {
        "the run lease at \(store.place(of: workload)) has not answered for \(Duration.seconds(patience).text); is its file system reachable?"
    }

    /// The outcome of making the newest record this agent's again.
    package enum Regaining: Sendable, Equatable {
        /// The newest record is this agent's.
        case regained(epoch: UInt64)
        /// The newest record is not covered by the promise; nothing was written.
        case superseded(by: LeaseRecord)
        /// This agent is exiting and has released the lease.
        case stopped
    }

    /// Makes the newest record this agent's again, by a destination's promise never to start by a token.
    ///
    /// Retries without limit, until the record is written, another agent's record is found, or ``release(forGood:)`` is
    /// called.
    ///
    /// - Parameters:
    ///   - token: the token that the destination promised never to start by.
    ///   - destination: the instance that gave the promise, as 32 hexadecimal digits.
    ///   - onDelay: called once with the error if the store cannot be reached.
    package func regain(token: RunToken, promisedBy destination: String, _ onDelay: (RunLeaseError) -> Void)
        -> Regaining
    {
        notePromise(token: token, from: destination)
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                let outcome = try knowledge.turn.withLock { isOver throws(RunLeaseError) -> Regaining? in
                    isOver ? .stopped : try regainOnce()
                }
                if let outcome { return outcome }
            } catch {
                if pause == WorkloadLease.firstPause { onDelay(error) }
                WorkloadLease.rest(&pause)
            }
        }
    }

    /// Tries once; nil if another record was written first, so that the newest record must be read again.
    private func regainOnce() throws(RunLeaseError) -> Regaining? {
        let newest = try store.newest(workload)
        if let newest {
            let isOwn = newest.owner == instance
            if isOwn, newest.standing != .released {
                knowledge.epoch.store(newest.epoch, ordering: .relaxed)
                return .regained(epoch: newest.epoch)
            }
            guard isOwn || isPromised(newest) else {
                knowledge.refusals.add(1, ordering: .relaxed)
                return .superseded(by: newest)
            }
        }
        // No record can follow the last epoch, so retrying is useless.
        guard let record = try? record(started: true, following: newest) else {
            return newest.map { .superseded(by: $0) }
        }
        let proposal = try store.propose(record, following: newest, for: workload)
        guard proposal == .won else { return nil }
        knowledge.epoch.store(record.epoch, ordering: .relaxed)
        return .regained(epoch: record.epoch)
    }

    /// Gives the lease that was taken for a token back to its owner, since the start executed nothing.
    ///
    /// Retries without limit.
    ///
    /// - Parameters:
    ///   - owner: the source's instance, as 32 hexadecimal digits.
    ///   - token: the token of RUN.
    ///   - onDelay: called once with the error if the store cannot be reached.
    package func giveBack(to owner: String, token: RunToken, _ onDelay: (RunLeaseError) -> Void) {
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                // If the newest record is not the one that this agent took, the owner has written its own.
                guard let newest = try store.newest(workload), newest.owner == instance, newest.token == token,
                    newest.standing == .holding,
                    // `take` has checked that two epochs follow, so this cannot fail.
                    let record = try? newest.next(owner: owner, token: token, started: false)
                else { return }
                _ = try store.propose(record, following: newest, for: workload)
                return
            } catch {
                if pause == WorkloadLease.firstPause { onDelay(error) }
                WorkloadLease.rest(&pause)
            }
        }
    }

    /// Releases the lease if the newest record is this agent's or is covered by a promise: any agent may then take the
    /// lease.
    ///
    /// Call this only once the workload executes nothing here any more. Waits at most ``patience``.
    ///
    /// - Parameter forGood: whether the agent is exiting, so that ``regain(token:promisedBy:_:)`` stops.
    /// - Throws: ``LeaseRefused`` with the reason and the remedy if the store does not answer.
    package func release(forGood: Bool) throws {
        let deadline = MonotonicClock.now() + nanoseconds(patience / 2)
        let failure: String?
        do throws(LeaseRefused) {
            failure = try answer { releaseUntilAnswered(deadline, forGood: forGood) }
        } catch {
            failure = error.reason
        }
        if let failure { throw LeaseRefused(reason: notReleased(failure)) }
    }

    /// The error for a lease that an exiting agent does not release, with the remedy.
    package func notReleased(_ reason: String) -> String {
        // The record may name another owner, whom the release must name too.
        "the run lease '\(workload)' is not released: \(reason); once nobody runs the workload, release it as this "
            + "says: \(takeCommand(for: []))"
    }

    /// Retries until the deadline; returns nil, or why the store did not answer.
    private func releaseUntilAnswered(_ deadline: UInt64, forGood: Bool) -> String? {
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                let isDone = try knowledge.turn.withLock { isOver throws(RunLeaseError) -> Bool in
                    isOver = isOver || forGood
                    return try releaseOnce()
                }
                if isDone { return nil }
            } catch {
                guard MonotonicClock.now() < deadline else { return "\(error)" }
                WorkloadLease.rest(&pause)
            }
        }
    }

    /// Tries once; false if another record was written first, so that the newest record must be read again.
    private func releaseOnce() throws(RunLeaseError) -> Bool {
        guard let newest = try store.newest(workload), newest.standing != .released,
            newest.owner == instance || isPromised(newest)
        else { return true }
        let record = try record(started: false, following: newest)
        return try store.propose(record, following: newest, for: workload) == .won
    }

    /// Seconds between two attempts to reach a store, at first and at most.
    private static let (firstPause, longestPause) = (0.05, 2.0)

    private static func rest(_ pause: inout Double) {
        MonotonicClock.sleep(nanoseconds: nanoseconds(pause))
        pause = min(longestPause, pause * 2)
    }

    private func describe(_ record: LeaseRecord) -> String {
        "the run lease '\(workload)': \(record.sentence)"
    }

    /// What an operator can do about a record whose owner does not answer.
    private func remedy(for record: LeaseRecord) throws(RunLeaseError) -> String {
        // `release` fails only if no epoch follows.
        guard (try? record.release()) != nil else { return exhaustion(after: record.epoch) }
        let runners = record.possibleRunners(following: try store.predecessor(of: record, for: workload))
        let who = runners.count == 1 ? "that agent is" : "that agent, and the one that it took the lease from, are both"
        return "if \(who) gone for good: \(takeCommand(for: runners))"
    }

    private func exhaustion(after epoch: UInt64) -> String {
        "epoch \(epoch) of a run lease is the last one: no record can follow it; use another name for the workload"
    }

    private func takeCommand(for owners: [String]) -> String {
        "pageferry lease \(store.place(of: workload))" + owners.map { " --take \($0)" }.joined()
    }
}

private func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(seconds * 1_000_000_000) }
