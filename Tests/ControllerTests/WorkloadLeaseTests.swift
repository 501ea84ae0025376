import Foundation
import OwnThread
import RunLease
import Synchronization
import Testing

@testable import Controller

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct WorkloadLeaseTests {
    /// A store whose server is gone: who asks waits until that is over.
    private final class HangingStore: RunLeaseStore {
        let name = "hung"
        private let inner: FileRunLeaseStore
        private let gate = Mutex<Bool>(false)

        init(_ inner: FileRunLeaseStore) { self.inner = inner }

        func release() { gate.withLock { $0 = true } }

        private func hang() {
            while !gate.withLock(\.self) { usleep(1000) }
        }

        func place(of workload: String) -> String { "hung/\(workload)" }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? {
            hang()
            return try inner.newest(workload)
        }

        func propose(_ record: LeaseRecord, for workload: String) throws(RunLeaseError) -> LeaseProposal {
            hang()
            return try inner.propose(record, for: workload)
        }
    }

    private let silence = "the run lease at hung/w has not answered for 1 s; is its file system reachable?"
    private let own = String(repeating: "1", count: 32)
    private let other = String(repeating: "2", count: 32)

    private func withStore(_ body: (FileRunLeaseStore, HangingStore) throws -> Void) throws {
        let folder = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let store = try FileRunLeaseStore(directory: folder)
        let hanging = HangingStore(store)
        // Whoever still waits ends with the test.
        defer { hanging.release() }
        try body(store, hanging)
    }

    @Test func `a store that never answers does not hold up a workload that is to begin`() throws {
        try withStore { _, hanging in
            let lease = WorkloadLease(store: hanging, workload: "w", instance: own, patience: 0.2)
            #expect(throws: CommandRefused(reason: silence)) { try lease.begin() }
        }
    }

    @Test func `a take-back whose store hangs is told so, and counts once the store has written it`() throws {
        try withStore { store, hanging in
            #expect(try store.propose(LeaseRecord(epoch: 1, owner: own, started: true), for: "w") == .won)
            let lease = WorkloadLease(store: hanging, workload: "w", instance: own, patience: 0.2)
            guard case .unreachable(silence) = lease.seize(after: 1, token: 7) else {
                Issue.record("it had an answer")
                return
            }
            hanging.release()
            while try store.newest("w")?.epoch != 2 { usleep(1000) }
            let late = WorkloadLease(store: store, workload: "w", instance: other)
            guard case .refused = late.take(after: 1, token: 7) else {
                Issue.record("the destination won a lease that was taken back")
                return
            }
        }
    }
}
