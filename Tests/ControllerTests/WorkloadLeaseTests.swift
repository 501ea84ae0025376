import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
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

    @Test func `only what was written for a take-back, or given back for it, is one`() throws {
        try withStore { (store, _) throws in
            let lease = WorkloadLease(store: store, workload: "w", instance: own)
            #expect(try store.propose(LeaseRecord(epoch: 1, owner: own, started: true), for: "w") == .won)
            let taken = LeaseRecord(epoch: 2, owner: other, token: 7, started: true)
            #expect(try store.propose(taken, for: "w") == .won)
            let givenBack = LeaseRecord(epoch: 3, owner: own, token: 7, started: false)
            #expect(try store.propose(givenBack, for: "w") == .won)
            guard case .taken(epoch: 3) = lease.seize(after: 1, token: 7) else {
                Issue.record("what the destination has given back is not taken")
                return
            }
            // What it says of another RUN, it says not of this one.
            guard case .refused = lease.seize(after: 1, token: 8) else {
                Issue.record("a record that was written for another RUN is taken")
                return
            }
        }
    }

    @Test func `a lease that is taken back late keeps its workload from moving until then`() async throws {
        let folder = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let store = LateStore(files: try FileRunLeaseStore(directory: folder), gate: try Gate())
        let ferrying = try await Ferrying(lease: store) { $0.clock.behave { $0.acquire = .fails } }
        defer {
            store.gate.open()
            ferrying.end()
        }
        try await ferrying.source.command("migrate", ["uri": .string(ferrying.relay.address.description)])
        store.isLate.store(true, ordering: .sequentiallyConsistent)
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "failed")
        try await ferrying.source.wait(untilRunning: true)
        #expect(try await soon { store.gate.hasVisitor })
        var configuration = Agent.Configuration()
        configuration.lease = (store, "test")
        let other = Host(landing: TestLanding(journal: ferrying.journal), configuration: configuration)
        let address = try await other.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        let uri = JSONValue.string(address.description)
        let refusal = await ferrying.source.refusal("migrate", ["uri": uri])
        #expect(refusal?.contains("the run lease is still being taken back") == true, "\(refusal ?? "not refused")")
        store.gate.open()
        #expect(try await soon { await ferrying.source.refusal("migrate", ["uri": uri]) == nil })
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        let instance = await other.agent.instance.description
        #expect(try store.files.newest("test")?.owner == instance)
        #expect(!ferrying.journal.ranTwice)
    }

    /// A store that is late with one answer: when it is asked whose a workload's lease is.
    private final class LateStore: RunLeaseStore {
        let files: FileRunLeaseStore
        let gate: Gate
        let isLate = Atomic<Bool>(false)

        init(files: FileRunLeaseStore, gate: Gate) { (self.files, self.gate) = (files, gate) }

        var name: String { files.name }
        func place(of workload: String) -> String { files.place(of: workload) }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? {
            if isLate.exchange(false, ordering: .sequentiallyConsistent) { gate.pass() }
            return try files.newest(workload)
        }

        func propose(_ record: LeaseRecord, for workload: String) throws(RunLeaseError) -> LeaseProposal {
            try files.propose(record, for: workload)
        }
    }
}
