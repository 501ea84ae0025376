import Foundation
import Identity
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
    private let silence = "the run lease at leases/w has not answered for 200 ms; is its file system reachable?"
    private let a = String(repeating: "a", count: 32)
    private let b = String(repeating: "b", count: 32)
    private let c = String(repeating: "c", count: 32)

    private func lease(_ owner: String, in store: HeldStore, patience: Double = 10) -> WorkloadLease {
        WorkloadLease(store: store, workload: "w", instance: owner, patience: patience)
    }

    private func newest(_ store: HeldStore) throws -> LeaseRecord? { try store.files.newest("w") }

    /// The error of a lease's call; nil if the call succeeds.
    private func refusal(_ body: () throws -> Void) -> String? {
        do {
            try body()
            return nil
        } catch {
            return "\(error)"
        }
    }

    @Test func `a store that never answers does not block the start of a workload`() throws {
        let store = try HeldStore(holding: [.newest])
        defer { store.gate.open() }
        let lease = lease(a, in: store, patience: 0.2)
        #expect(throws: LeaseRefused(reason: silence)) { try lease.begin(isStart: false) }
    }

    @Test func `the record of an abandoned start is released when it is written late`() throws {
        let store = try HeldStore(holding: [.propose])
        defer { store.gate.open() }
        let lease = lease(a, in: store, patience: 0.2)
        let remedy =
            "\(silence); if a later start finds the lease held by this one: "
            + "pageferry lease leases/w --take \(a)"
        #expect(throws: LeaseRefused(reason: remedy)) { try lease.begin(isStart: true) }
        #expect(try newest(store) == nil)
        store.gate.open()
        while try newest(store)?.standing != .released { usleep(1000) }
        #expect(try self.lease(b, in: store).begin(isStart: true) == 3)
    }

    @Test func `the record of a workload that runs here stays when it is written late`() throws {
        let store = try HeldStore(holding: [.propose])
        defer { store.gate.open() }
        let lease = lease(a, in: store, patience: 0.2)
        #expect(throws: LeaseRefused(reason: silence)) { try lease.begin(isStart: false) }
        store.gate.open()
        while try newest(store)?.standing != .holding { usleep(1000) }
        #expect(try lease.begin(isStart: false) == 1)
    }

    @Test func `a take-back reports a store that hangs, and counts once the store has written it`() throws {
        let store = try HeldStore(holding: [.propose])
        defer { store.gate.open() }
        try store.files.append(a, to: "w")
        #expect(lease(a, in: store, patience: 0.2).seize(after: 1, token: 7) == .unreachable(reason: silence))
        store.gate.open()
        while try newest(store)?.epoch != 2 { usleep(1000) }
        guard case .refused = lease(b, in: store).take(after: 1, token: 7, from: a) else {
            Issue.record("the destination won a lease that was taken back")
            return
        }
    }

    @Test func `a record is a take-back only if it was written for that take-back or given back for it`() throws {
        let store = try HeldStore()
        try store.files.append(a, to: "w")
        try store.files.append(b, token: 7, to: "w")
        try store.files.append(a, token: 7, started: false, to: "w")
        let lease = lease(a, in: store)
        #expect(lease.seize(after: 1, token: 7) == .taken(epoch: 3))
        // The record of one RUN does not hold for another.
        guard case .refused = lease.seize(after: 1, token: 8) else {
            Issue.record("a record that was written for another RUN is taken")
            return
        }
    }

    @Test func `a lease begins with epoch 1 and belongs to its owner until another record follows`() throws {
        let store = try HeldStore()
        #expect(try lease(a, in: store).begin(isStart: false) == 1)
        #expect(try lease(a, in: store).begin(isStart: false) == 1)
        #expect(try newest(store) == LeaseRecord(epoch: 1, owner: a, started: true))
    }

    @Test func `a start that the lease refuses reports the record, and how to take the lease over`() throws {
        let store = try HeldStore()
        let remedy = "; if that agent is gone for good: pageferry lease leases/w --take \(a)"
        try store.files.append(a, to: "w")
        #expect(
            refusal { _ = try lease(b, in: store).begin(isStart: false) }
                == "the run lease 'w': \(a) runs the workload, or has committed to start it, since epoch 1" + remedy
        )
        try store.files.append(a, token: 7, started: false, to: "w")
        #expect(
            refusal { _ = try lease(b, in: store).begin(isStart: false) }
                == "the run lease 'w': \(a) has held the lease again since "
                + "epoch 2, as a destination gave it back and executed nothing" + remedy
        )
    }

    @Test func `any owner may take a released lease`() throws {
        let store = try HeldStore()
        #expect(try lease(a, in: store).begin(isStart: false) == 1)
        try lease(a, in: store).release(forGood: true)
        #expect(try newest(store) == LeaseRecord(epoch: 2, owner: a, started: false))
        #expect(try lease(b, in: store).begin(isStart: false) == 3)
        #expect(try newest(store) == LeaseRecord(epoch: 3, owner: b, started: true))
    }

    @Test func `only the owner of the newest record can release the lease, once`() throws {
        let store = try HeldStore()
        try lease(a, in: store).release(forGood: true)
        #expect(try newest(store) == nil)
        try store.files.append(b, token: 3, to: "w")
        try lease(a, in: store).release(forGood: true)
        #expect(try newest(store)?.epoch == 1)
        try lease(b, in: store).release(forGood: true)
        try lease(b, in: store).release(forGood: true)
        #expect(try newest(store) == LeaseRecord(epoch: 2, owner: b, started: false))
    }

    @Test func `a store that hangs delays a release for a bounded time, with the remedy`() throws {
        let store = try HeldStore()
        defer { store.gate.open() }
        try store.files.append(a, to: "w")
        store.hold([.newest])
        let lease = lease(a, in: store, patience: 0.2)
        #expect(
            refusal { try lease.release(forGood: true) } == "the run lease 'w' is not released: \(silence); "
                + "once nobody runs the workload, release it as this says: pageferry lease leases/w"
        )
    }

    @Test func `a RUN that names a record of another owner than its source wins nothing`() throws {
        let store = try HeldStore()
        try store.files.append(a, to: "w")
        // The records were removed, and another agent has begun anew.
        try store.removeRecords(of: "w")
        try store.files.append(c, to: "w")
        #expect(
            lease(b, in: store).take(after: 1, token: 7, from: a)
                == .refused(
                    reason: "RUN names epoch 1 of the run lease 'w' as the record of \(a), but \(c) runs the workload, "
                        + "or has committed to start it, since epoch 1"
                )
        )
        #expect(try newest(store)?.owner == c)
    }

    @Test func `a commit wins nothing if the previous record is replaced between its read and its write`() throws {
        let store = try HeldStore(holding: [.propose])
        try store.files.append(a, to: "w")
        let commit = try OnThread { lease(b, in: store).take(after: 1, token: 7, from: a) }
        while !store.gate.hasVisitor { usleep(1000) }
        try store.removeRecords(of: "w")
        try store.files.append(c, to: "w")
        store.gate.open()
        guard case .refused = commit.value else {
            Issue.record("the commit followed a record that its source does not own")
            return
        }
        #expect(try newest(store) == LeaseRecord(epoch: 1, owner: c, started: true))
    }

    @Test func `a dead process's commit loses if it lands after a takeover`() throws {
        let store = try HeldStore(holding: [.propose])
        try store.files.append(a, to: "w")
        let commit = try OnThread { lease(b, in: store).take(after: 1, token: 7, from: a) }
        while !store.gate.hasVisitor { usleep(1000) }
        try store.files.append(a, started: false, to: "w")
        try store.files.append(c, to: "w")
        store.gate.open()
        guard case .refused = commit.value else {
            Issue.record("a late commit has won")
            return
        }
        #expect(try newest(store) == LeaseRecord(epoch: 3, owner: c, started: true))
    }

    @Test func `a commit whose answer was lost does not count once another record follows it`() throws {
        let store = UnansweringStore(try HeldStore())
        try store.held.files.append(a, to: "w")
        let lease = WorkloadLease(store: store, workload: "w", instance: b)
        // The record is written without an answer, and the lease is taken over before the record is read again.
        let (taking, owner) = (lease.take(after: 1, token: 7, from: a), c)
        guard case .refused(let reason) = taking else {
            Issue.record("won although \(owner) has the lease: \(taking)")
            return
        }
        #expect(reason.contains(c))
    }

    /// A store that writes the first proposal without an answer and then lets another owner take the lease over.
    private final class UnansweringStore: RunLeaseStore {
        let held: HeldStore
        private let isFirst = Atomic<Bool>(true)

        init(_ held: HeldStore) { self.held = held }

        var name: String { held.name }
        func place(of workload: String) -> String { held.place(of: workload) }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? { try held.newest(workload) }

        func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
            try held.record(of: epoch, for: workload)
        }

        func propose(
            _ record: LeaseRecord,
            following predecessor: LeaseRecord?,
            for workload: String
        ) throws(RunLeaseError) -> LeaseProposal {
            let proposal = try held.propose(record, following: predecessor, for: workload)
            guard isFirst.exchange(false, ordering: .relaxed) else { return proposal }
            let released = try record.release()
            _ = try held.propose(released, following: record, for: workload)
            let other = try released.next(owner: String(repeating: "c", count: 32), started: true)
            _ = try held.propose(other, following: released, for: workload)
            throw RunLeaseError("the answer was lost", mayHaveBeenWritten: true)
        }
    }

    @Test func `a take-back may follow its own released record, but not a destination's`() throws {
        let store = try HeldStore()
        try store.files.append(a, to: "w")
        try store.files.append(a, started: false, to: "w")
        #expect(lease(a, in: store).seize(after: 1, token: 7) == .taken(epoch: 3))
        let other = try HeldStore()
        try other.files.append(a, to: "w")
        try other.files.append(b, token: 7, to: "w")
        try other.files.append(b, started: false, to: "w")
        guard case .refused = lease(a, in: other).seize(after: 1, token: 7) else {
            Issue.record("an old state was taken back after the workload had run elsewhere")
            return
        }
    }

    @Test func `the start and the release follow a commit that lands after its promise`() throws {
        for releases in [false, true] {
            let store = try HeldStore()
            let lease = lease(a, in: store)
            #expect(try lease.begin(isStart: false) == 1)
            // The promise arrives before the destination's store has answered.
            #expect(regain(lease, token: 7, from: b) == .regained(epoch: 1))
            try store.files.append(b, token: 7, to: "w")
            if releases {
                try lease.release(forGood: true)
                #expect(try newest(store) == LeaseRecord(epoch: 3, owner: a, started: false))
            } else {
                #expect(try lease.begin(isStart: false) == 3)
                #expect(try newest(store) == LeaseRecord(epoch: 3, owner: a, started: true))
            }
        }
    }

    private func regain(_ lease: WorkloadLease, token: RunToken, from destination: String) -> WorkloadLease.Regaining {
        lease.regain(token: token, promisedBy: destination) { Issue.record("\($0)") }
    }

    @Test func `a promise holds for one destination and one token`() throws {
        for (owner, token) in [(b, 8), (c, 7)] as [(String, RunToken)] {
            let store = try HeldStore()
            try store.files.append(a, to: "w")
            let record = try store.files.append(owner, token: token, to: "w")
            let lease = lease(a, in: store)
            #expect(regain(lease, token: 7, from: b) == .superseded(by: record))
            #expect(refusal { _ = try lease.begin(isStart: false) } != nil)
            try lease.release(forGood: true)
            #expect(try newest(store) == record)
        }
    }

    @Test func `a record that a promise covers, or that was given back, is regained`() throws {
        let store = try HeldStore()
        try store.files.append(a, to: "w")
        try store.files.append(b, token: 7, to: "w")
        #expect(regain(lease(a, in: store), token: 7, from: b) == .regained(epoch: 3))
        #expect(try newest(store) == LeaseRecord(epoch: 3, owner: a, started: true))
        try store.files.append(b, token: 8, to: "w")
        try store.files.append(a, token: 8, started: false, to: "w")
        #expect(regain(lease(a, in: store), token: 8, from: b) == .regained(epoch: 5))
        try store.files.append(a, started: false, to: "w")
        #expect(regain(lease(a, in: store), token: 8, from: b) == .regained(epoch: 7))
    }

    @Test func `a late regain does not overwrite the next destination's commit`() throws {
        let store = try HeldStore()
        let lease = lease(a, in: store)
        #expect(try lease.begin(isStart: false) == 1)
        store.hold([.propose])
        try store.files.append(b, token: 7, to: "w")
        let late = try OnThread { regain(lease, token: 7, from: b) }
        while !store.gate.hasVisitor { usleep(1000) }
        // The lease comes back by another record, and moves on to a third host.
        try store.files.append(a, token: 7, started: false, to: "w")
        let commit = try store.files.append(c, token: 9, to: "w")
        store.gate.open()
        #expect(late.value == .superseded(by: commit))
        #expect(try newest(store) == commit)
    }

    @Test func `a release ends a regain that waits for its store`() throws {
        let store = FailingStore()
        let lease = WorkloadLease(store: store, workload: "w", instance: a, patience: 4)
        let waiting = try OnThread {
            lease.regain(token: 7, promisedBy: b) { _ in store.told.store(true, ordering: .relaxed) }
        }
        while !store.told.load(ordering: .relaxed) { usleep(1000) }
        #expect(refusal { try lease.release(forGood: true) }?.contains("no route to the store") == true)
        #expect(waiting.value == .stopped)
    }

    /// A store that answers each call with an error.
    private final class FailingStore: RunLeaseStore {
        let told = Atomic<Bool>(false)
        let name = "failing"
        func place(of workload: String) -> String { "leases/\(workload)" }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? {
            throw RunLeaseError("no route to the store")
        }

        func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
            throw RunLeaseError("no route to the store")
        }

        func propose(
            _ record: LeaseRecord,
            following predecessor: LeaseRecord?,
            for workload: String
        ) throws(RunLeaseError) -> LeaseProposal {
            throw RunLeaseError("no route to the store")
        }
    }

    @Test func `the last epoch, which no record can follow, is refused in RUN and in a record`() throws {
        let store = try HeldStore()
        try store.files.append(a, to: "w")
        for epoch in [0, 2, .max - 1, .max] as [UInt64] {
            #expect(
                lease(b, in: store).take(after: epoch, token: 7, from: a)
                    == .refused(reason: "RUN names epoch \(epoch) of the run lease 'w', which has no record")
            )
        }
        let last = "pageferry run lease 1\nepoch \(UInt64.max)\nowner \(a)\ntoken 0\nstarted no\n"
        try store.write(last, as: "\(UInt64.max)", for: "w")
        let reason = "epoch 18446744073709551615 of a run lease is the last one: no record can follow it"
        #expect(refusal { _ = try lease(b, in: store).begin(isStart: false) } == reason)
        #expect(lease(b, in: store).take(after: .max, token: 7, from: a) == .unreachable(reason: reason))
        guard case .refused = lease(a, in: store).seize(after: 1, token: 7) else {
            Issue.record("an epoch that is occupied was taken")
            return
        }
        #expect(lease(a, in: store).seize(after: .max, token: 7) == .unreachable(reason: reason))
        #expect(lease(a, in: store).seize(after: .max - 1, token: 7) != .taken(epoch: .max))
        try lease(a, in: store).release(forGood: true)
        try store.write(last.replacing("no\n", with: "yes\n"), as: "\(UInt64.max)", for: "w")
        #expect(refusal { try lease(a, in: store, patience: 4).release(forGood: true) }?.contains(reason) == true)
    }

    @Test func `a commit never takes an epoch after which the lease could not be given back`() throws {
        let store = try HeldStore()
        func write(_ owner: String, token: Int, epoch: UInt64) throws {
            let text = "pageferry run lease 1\nepoch \(epoch)\nowner \(owner)\ntoken \(token)\nstarted yes\n"
            try store.write(text, as: "\(epoch)", for: "w")
        }
        try write(a, token: 0, epoch: .max - 1)
        let reason = "epoch 18446744073709551615 of a run lease is the last one: no record can follow it"
        #expect(lease(b, in: store).take(after: .max - 1, token: 7, from: a) == .unreachable(reason: reason))
        // Another owner has written the record.
        try write(b, token: 7, epoch: .max)
        lease(b, in: store).giveBack(to: a, token: 7) { Issue.record("\($0)") }
        let record = try #require(try newest(store))
        #expect(regain(lease(a, in: store), token: 7, from: b) == .superseded(by: record))
    }

    @Test func `a RUN without a token wins nothing`() throws {
        let store = try HeldStore()
        try store.files.append(a, to: "w")
        let reason = "RUN has token 0, which stands for no RUN"
        #expect(lease(b, in: store).take(after: 1, token: 0, from: a) == .refused(reason: reason))
    }

    @Test func `a workload cannot move until its lease has been taken back`() async throws {
        let store = try HeldStore()
        let ferrying = try await Ferrying(lease: store) { $0.clock.behave { $0.acquire = .fails } }
        defer {
            store.gate.open()
            ferrying.end()
        }
        try await ferrying.source.command("migrate", ["uri": .string(ferrying.relay.address.description)])
        store.hold([.newest])
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
}

/// Blocking work on its own thread, and its outcome.
final class OnThread<Value: Sendable>: Sendable {
    private let outcome = Mutex<Value?>(nil)
    private let done: EventDescriptor

    init(_ work: @escaping @Sendable () -> Value) throws {
        done = try EventDescriptor()
        Thread.detachNewThread { [self] in
            let value = work()
            outcome.withLock { $0 = value }
            done.raise()
        }
    }

    /// Waits for the outcome.
    var value: Value {
        done.wait()
        guard let value = outcome.withLock(\.self) else { preconditionFailure("raised without an outcome") }
        return value
    }
}
