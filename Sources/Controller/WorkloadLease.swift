import Foundation
import LinuxSystem
import PageProtocol
import RunLease
import Synchronization

/// The run lease of one workload, as one agent sees it.
///
/// A call blocks for as long as the store takes, but for those that say otherwise. Copies share what the agent knows.
struct WorkloadLease: Sendable {
    let store: any RunLeaseStore
    /// The workload's name in the store.
    let workload: String
    /// The agent's instance id, in digits.
    let instance: String
    /// How long a store may take where the workload is here and somebody waits, in seconds.
    let patience: Double

    private let knowledge = Knowledge()

    /// What all copies of an agent's lease share.
    private final class Knowledge: Sendable {
        /// Promises that the owner of a record never starts by that record's token.
        let promises = Mutex<Set<Promise>>([])
        /// Held by each step that reads the newest record and then writes; whether the lease was released for good.
        let turn = Mutex<Bool>(false)
    }

    private struct Promise: Hashable {
        let token: UInt64
        let owner: String
    }

    init(store: any RunLeaseStore, workload: String, instance: String, patience: Double = 10) {
        self.store = store
        self.workload = workload
        self.instance = instance
        self.patience = patience
    }

    /// The outcome of an attempt to take the lease.
    enum Taking: Sendable, Equatable {
        case taken(epoch: UInt64)
        case refused(reason: String)
        /// Nothing was written.
        case unreachable(reason: String)
    }

    /// What HELLO says of it in a migration that began at an epoch.
    func claim(from epoch: UInt64) -> LeaseClaim {
        .files(epoch: epoch, store: store.name, workload: workload)
    }

    /// Notes that a destination has promised never to start by a token: its record of that token may be followed.
    func notePromise(token: UInt64, from destination: String) {
        knowledge.promises.withLock { _ = $0.insert(Promise(token: token, owner: destination)) }
    }

    private func isPromised(_ record: LeaseRecord) -> Bool {
        let promise = Promise(token: record.token, owner: record.owner)
        return record.standing == .holding && knowledge.promises.withLock { $0.contains(promise) }
    }

    /// Takes the lease for a workload that begins here, or is about to move; nobody else may have it. Waits for
    /// ``patience`` at most.
    ///
    /// - Returns: the epoch of this agent's record.
    func begin() throws -> UInt64 {
        let deadline = MonotonicClock.now() + nanoseconds(patience / 2)
        let outcome = answer { Result { try take(before: deadline) } }
        guard let outcome else { throw CommandRefused(reason: silence) }
        return try outcome.get()
    }

    private func take(before deadline: UInt64) throws -> UInt64 {
        let newest = try store.newest(workload)
        if let newest, newest.owner == instance, newest.standing != .released { return newest.epoch }
        if let newest, newest.standing != .released, !isPromised(newest) {
            throw CommandRefused(reason: "\(describe(newest)); \(try remedy(for: newest))")
        }
        switch take(try record(started: true, following: newest), following: newest, until: deadline) {
        case .taken(let epoch): return epoch
        case .refused(let reason), .unreachable(let reason): throw CommandRefused(reason: reason)
        }
    }

    /// This agent's record that follows another, or is the first.
    private func record(started: Bool, following newest: LeaseRecord?) throws(RunLeaseError) -> LeaseRecord {
        try newest?.next(owner: instance, started: started)
            ?? LeaseRecord(epoch: 1, owner: instance, started: started)
    }

    /// Takes the lease for the RUN of a token, after the record that the RUN names. An answer that was lost is asked for
    /// again.
    ///
    /// - Parameters:
    ///   - epoch: out of RUN: any number.
    ///   - source: the instance that sent RUN, in digits. A record of the epoch that is anybody else's is not followed:
    ///     the records were removed, and have begun anew.
    func take(after epoch: UInt64, token: UInt64, from source: String) -> Taking {
        take(after: epoch, token: token, from: source, until: nil)
    }

    private func take(after epoch: UInt64, token: UInt64, from source: String, until deadline: UInt64?) -> Taking {
        do throws(RunLeaseError) {
            guard let predecessor = try store.record(of: epoch, for: workload) else {
                return .refused(reason: "RUN names epoch \(epoch) of the run lease '\(workload)', which has no record")
            }
            guard predecessor.owner == source else {
                return .refused(
                    reason: "RUN names epoch \(epoch) of the run lease '\(workload)' as the record of \(source), but "
                        + predecessor.sentence
                )
            }
            guard token != 0 else { return .refused(reason: "RUN has token 0, which stands for no RUN") }
            let record = try predecessor.next(owner: instance, token: token, started: true)
            // A start that executes nothing is given back by the record after that.
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
                case .won where !mayBeWritten: return .taken(epoch: record.epoch)
                // Written by an earlier call: another record may have followed since.
                case .won: newest = try store.newest(workload) ?? record
                case .lost(let other): newest = other
                }
                // Written before, without an answer; or given back by a destination that executed nothing.
                if newest == record || isGivenBack(newest, after: predecessor, token: record.token) {
                    return .taken(epoch: newest.epoch)
                }
                return .refused(reason: describe(newest))
            } catch {
                mayBeWritten = mayBeWritten || error.mayHaveBeenWritten
                let isLate = deadline.map { MonotonicClock.now() > $0 } ?? false
                guard mayBeWritten, !isLate else { return .unreachable(reason: "\(error)") }
            }
            WorkloadLease.rest(&pause)
        }
    }

    /// Whether a destination took the lease after a record of this agent, by this token, and gave it back.
    private func isGivenBack(_ record: LeaseRecord, after predecessor: LeaseRecord?, token: UInt64) -> Bool {
        guard record.standing == .givenBack, record.owner == instance, record.token == token else { return false }
        return record.epoch - (predecessor?.epoch ?? 0) == 2
    }

    /// Takes the lease back after an epoch of this agent's, as the destination gave no answer.
    ///
    /// What was written without an answer is no harm: the destination then loses. Waits for ``patience`` at most.
    func seize(after epoch: UInt64, token: UInt64) -> Taking {
        // Half of the time for asking again, so that the store's own reason comes where it has one.
        let deadline = MonotonicClock.now() + nanoseconds(patience / 2)
        return answer {
            let taking = take(after: epoch, token: token, from: instance, until: deadline)
            guard case .refused = taking else { return taking }
            do throws(RunLeaseError) {
                // An operator has released this record for an agent that seemed gone: the RUN can win nothing any more.
                guard let newest = try store.newest(workload),
                    try store.record(of: epoch, for: workload)?.release() == newest, newest.owner == instance
                else { return taking }
                let record = try newest.next(owner: instance, token: token, started: true)
                return take(record, following: newest, until: deadline)
            } catch {
                return .unreachable(reason: "\(error)")
            }
        } ?? .unreachable(reason: silence)
    }

    /// What a store answers, or nil if it does not: a file system whose server is gone can block for ever. The thread
    /// that asks stays until it has its answer, which then counts for nothing but what was written.
    private func answer<Value: Sendable>(_ ask: @escaping @Sendable () -> Value) -> Value? {
        let answer = Answer<Value>()
        Thread.detachNewThread {
            let value = ask()
            answer.value.withLock { $0 = value }
            answer.came.signal()
        }
        // DispatchTime counts by the monotonic clock.
        return answer.came.wait(timeout: .now() + patience) == .success ? answer.value.withLock(\.self) : nil
    }

    private final class Answer<Value: Sendable>: Sendable {
        let value = Mutex<Value?>(nil)
        let came = DispatchSemaphore(value: 0)
    }

    private var silence: String {
        "the run lease at \(store.place(of: workload)) has not answered for \(Int(patience.rounded(.up))) s; is its file system reachable?"
    }

    /// What became of the attempts to make the newest record this agent's again.
    enum Regaining: Sendable, Equatable {
        /// The newest record is this agent's.
        case regained(epoch: UInt64)
        /// The newest record is of another start than the promise speaks of: nothing was written.
        case superseded(by: LeaseRecord)
        /// This agent ends, and has released the lease.
        case stopped
    }

    /// Makes the newest record this agent's, which holds the promise of a destination that it never starts by a token.
    /// Tries until that is so, somebody else is found to have the lease, or ``release(forGood:)`` ends it.
    ///
    /// - Parameter onDelay: told once, by a store that cannot be reached, why this takes long.
    func regain(token: UInt64, promisedBy destination: String, _ onDelay: (RunLeaseError) -> Void) -> Regaining {
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

    /// Nil if another record came first, and the newest is to be looked at again.
    private func regainOnce() throws(RunLeaseError) -> Regaining? {
        let newest = try store.newest(workload)
        if let newest {
            let isOwn = newest.owner == instance
            if isOwn, newest.standing != .released { return .regained(epoch: newest.epoch) }
            guard isOwn || isPromised(newest) else { return .superseded(by: newest) }
        }
        // After the last epoch nothing can be regained, however often it is tried.
        guard let record = try? record(started: true, following: newest) else {
            return newest.map { .superseded(by: $0) }
        }
        let proposal = try store.propose(record, following: newest, for: workload)
        return proposal == .won ? .regained(epoch: record.epoch) : nil
    }

    /// Gives the lease that was taken for a token back to its owner: the start executed nothing. Tries until that is so.
    ///
    /// - Parameter onDelay: told once, by a store that cannot be reached, why this takes long.
    func giveBack(to owner: String, token: UInt64, _ onDelay: (RunLeaseError) -> Void) {
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                // Another record in its place is the owner's own.
                guard let newest = try store.newest(workload), newest.owner == instance, newest.token == token,
                    newest.standing == .holding,
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

    /// Says that nobody runs the workload, if the newest record is this agent's: any next owner may follow. Waits for
    /// ``patience`` at most.
    ///
    /// Only for a workload that executes nothing here any more.
    ///
    /// - Parameter forGood: whether the agent ends, and regains nothing from now on.
    /// - Throws: ``CommandRefused`` with the reason and the remedy, if the store does not answer.
    func release(forGood: Bool) throws {
        let deadline = MonotonicClock.now() + nanoseconds(patience / 2)
        if let failure = answer({ releaseUntilAnswered(deadline, forGood: forGood) }) ?? silence {
            throw CommandRefused(reason: notReleased(failure))
        }
    }

    /// What to tell of a lease that an agent which ends does not release.
    func notReleased(_ reason: String) -> String {
        "the run lease '\(workload)' is not released: \(reason); once nobody runs the workload: "
            + takeCommand(for: [instance])
    }

    /// Nil, or why the store did not answer.
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

    /// False if another record came first, and the newest is to be looked at again.
    private func releaseOnce() throws(RunLeaseError) -> Bool {
        guard let newest = try store.newest(workload), newest.standing != .released,
            newest.owner == instance || isPromised(newest)
        else { return true }
        let record = try record(started: false, following: newest)
        return try store.propose(record, following: newest, for: workload) == .won
    }

    /// Seconds until a store is asked again, the first time and at most.
    private static let (firstPause, longestPause) = (0.05, 2.0)

    private static func rest(_ pause: inout Double) {
        MonotonicClock.sleep(nanoseconds: nanoseconds(pause))
        pause = min(longestPause, pause * 2)
    }

    private func describe(_ record: LeaseRecord) -> String {
        "the run lease '\(workload)': \(record.sentence)"
    }

    /// What to do about a record whose owner does not answer.
    private func remedy(for record: LeaseRecord) throws(RunLeaseError) -> String {
        let runners = record.possibleRunners(following: try store.predecessor(of: record, for: workload))
        let who = runners.count == 1 ? "that agent is" : "that agent, and the one that it took the lease from, are both"
        return "if \(who) gone for good: \(takeCommand(for: runners))"
    }

    private func takeCommand(for owners: [String]) -> String {
        "pageferry lease \(store.place(of: workload))" + owners.map { " --take \($0)" }.joined()
    }
}

private func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(seconds * 1_000_000_000) }
