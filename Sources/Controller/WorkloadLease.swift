import Foundation
import PageProtocol
import RunLease
import Synchronization

/// The run lease of one workload, as one agent sees it.
///
/// A call blocks for as long as the store takes, but for those that say otherwise.
struct WorkloadLease: Sendable {
    let store: any RunLeaseStore
    /// The workload's name in the store.
    let workload: String
    /// The agent's instance id, in digits.
    let instance: String
    /// How long a store may take where the workload is here and somebody waits, in seconds.
    var patience = 10.0

    /// Whose the lease is, after somebody tried to have it.
    enum Taking: Sendable {
        case taken(epoch: UInt64)
        case refused(reason: String)
        /// Nothing was written.
        case unreachable(reason: String)
    }

    /// What HELLO says of it in a migration that began at an epoch.
    func claim(from epoch: UInt64) -> LeaseClaim {
        .files(epoch: epoch, store: store.name, workload: workload)
    }

    /// Takes the lease for a workload that begins here; nobody else may have it. Waits for ``patience`` at most.
    func begin() throws -> UInt64 {
        let deadline = Date(timeIntervalSinceNow: patience / 2)
        let outcome = answer { Result { try take(before: deadline) } }
        guard let outcome else { throw CommandRefused(reason: silence) }
        return try outcome.get()
    }

    private func take(before deadline: Date) throws -> UInt64 {
        let newest = try store.newest(workload)
        guard let newest else {
            switch take(after: 0, token: 0, until: deadline) {
            case .taken(let epoch): return epoch
            case .refused(let reason), .unreachable(let reason): throw CommandRefused(reason: reason)
            }
        }
        guard newest.owner == instance else {
            throw CommandRefused(
                reason: describe(newest) + "; if that agent is gone for good, remove \(store.place(of: workload))"
            )
        }
        return newest.epoch
    }

    /// Takes the lease after an epoch, for the RUN of a token. An answer that was lost is asked for again.
    func take(after epoch: UInt64, token: UInt64, until deadline: Date? = nil) -> Taking {
        let record = LeaseRecord(epoch: epoch + 1, owner: instance, token: token, started: true)
        var pause = WorkloadLease.firstPause
        var mayBeWritten = false
        while true {
            do throws(RunLeaseError) {
                switch try store.propose(record, for: workload) {
                case .won: return .taken(epoch: record.epoch)
                // Written before, without an answer; or given back by a destination that executed nothing.
                case .lost(let newest) where newest == record || isGivenBack(newest, after: epoch, token: token):
                    return .taken(epoch: newest.epoch)
                case .lost(let newest): return .refused(reason: describe(newest))
                }
            } catch {
                mayBeWritten = mayBeWritten || error.mayHaveBeenWritten
                let isLate = deadline.map { Date.now > $0 } ?? false
                guard mayBeWritten, !isLate else { return .unreachable(reason: "\(error)") }
            }
            WorkloadLease.rest(&pause)
        }
    }

    private func isGivenBack(_ record: LeaseRecord, after epoch: UInt64, token: UInt64) -> Bool {
        record == LeaseRecord(epoch: epoch + 2, owner: instance, token: token, started: false)
    }

    /// Takes the lease back after an epoch, as the destination gave no answer.
    ///
    /// What was written without an answer is no harm: the destination then loses. Waits for ``patience`` at most.
    func seize(after epoch: UInt64, token: UInt64) -> Taking {
        // Half of the time for asking again, so that the store's own reason comes where it has one.
        let deadline = Date(timeIntervalSinceNow: patience / 2)
        return answer { take(after: epoch, token: token, until: deadline) } ?? .unreachable(reason: silence)
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
        return answer.came.wait(timeout: .now() + patience) == .success ? answer.value.withLock(\.self) : nil
    }

    private final class Answer<Value: Sendable>: Sendable {
        let value = Mutex<Value?>(nil)
        let came = DispatchSemaphore(value: 0)
    }

    private var silence: String {
        "the run lease at \(store.place(of: workload)) has not answered for \(Int(patience.rounded(.up))) s; is its file system reachable?"
    }

    /// Makes the newest record this agent's, which holds a promise that nobody else runs. Tries until that is so.
    ///
    /// - Parameter onDelay: told once, by a store that cannot be reached, why this takes long.
    /// - Returns: the record's epoch.
    func regain(_ onDelay: (RunLeaseError) -> Void) -> UInt64 {
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                let newest = try store.newest(workload)
                if let newest, newest.owner == instance { return newest.epoch }
                let record = LeaseRecord(epoch: (newest?.epoch ?? 0) + 1, owner: instance, started: true)
                if case .won = try store.propose(record, for: workload) { return record.epoch }
            } catch {
                if pause == WorkloadLease.firstPause { onDelay(error) }
                WorkloadLease.rest(&pause)
            }
        }
    }

    /// Gives the lease that was taken after an epoch back to its owner: the start executed nothing. Tries until that is
    /// so.
    ///
    /// - Parameter onDelay: told once, by a store that cannot be reached, why this takes long.
    func giveBack(to owner: String, after epoch: UInt64, token: UInt64, _ onDelay: (RunLeaseError) -> Void) {
        let record = LeaseRecord(epoch: epoch + 2, owner: owner, token: token, started: false)
        var pause = WorkloadLease.firstPause
        while true {
            do throws(RunLeaseError) {
                // Another record in its place is the owner's own.
                _ = try store.propose(record, for: workload)
                return
            } catch {
                if pause == WorkloadLease.firstPause { onDelay(error) }
                WorkloadLease.rest(&pause)
            }
        }
    }

    /// Seconds until a store is asked again, the first time and at most.
    private static let (firstPause, longestPause) = (0.05, 2.0)

    private static func rest(_ pause: inout Double) {
        Thread.sleep(forTimeInterval: pause)
        pause = min(longestPause, pause * 2)
    }

    private func describe(_ record: LeaseRecord) -> String {
        "the run lease '\(workload)' is \(record.owner)'s since epoch \(record.epoch)"
            + (record.started ? ", which runs the workload" : "")
    }
}
