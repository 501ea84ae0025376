import Guest
import Identity
import LinuxSystem
import LogLines
import OwnThread
import PageProtocol
import QMP
import RunLease
import Synchronization
import Testing

@testable import Controller

/// The run lease's records after an agent's start and exit.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct AgentEndTests {
    private let journal = Journal()
    private let log = LogLines()
    private let store: HeldStore
    private let workload: TestWorkload

    init() throws {
        store = try HeldStore()
        workload = try TestWorkload.filled(journal: journal, pageCounts: [4])
    }

    private func host() -> Host {
        var configuration = Agent.Configuration()
        configuration.lease = (store, "test")
        return Host(workload: workload, configuration: configuration, log: log)
    }

    private var standings: [LeaseRecord.Standing?] {
        get throws { try store.files.history(of: "test").map { $0.record?.standing } }
    }

    @Test func `a start takes the locks before the lease`() async throws {
        let host = host()
        workload.disk.behave { $0.acquire = .waits }
        async let start: Void = host.agent.startWorkload()
        #expect(try await soon { workload.disk.gate.hasVisitor })
        #expect(try standings == [])
        workload.disk.gate.open()
        try await start
        #expect(try standings == [.holding])
        await host.agent.end()
        #expect(!workload.activity.isRunning)
    }

    @Test func `a start that a lock refuses leaves no record`() async throws {
        workload.clock.behave { $0.acquire = .fails }
        let host = host()
        await #expect(throws: (any Error).self) { try await host.agent.startWorkload() }
        #expect(try standings == [])
        #expect(journal.index(of: "source release disk") != nil)
    }

    @Test func `a start that the lease refuses releases the locks`() async throws {
        try store.files.append(String(repeating: "b", count: 32), to: "test")
        let host = host()
        await #expect(throws: (any Error).self) { try await host.agent.startWorkload() }
        #expect(journal.index(of: "source release disk") != nil)
        #expect(journal.running == [])
        #expect(try standings == [.holding])
    }

    @Test func `a start that fails after the lease was taken releases it`() async throws {
        workload.failsToRun.store(true, ordering: .releasing)
        let host = host()
        await #expect(throws: (any Error).self) { try await host.agent.startWorkload() }
        #expect(try standings == [.holding, .released])
        #expect(journal.index(of: "source release disk") != nil)
    }

    @Test func `an agent that exits stops its workload before it releases the lease`() async throws {
        let host = host()
        try await host.agent.startWorkload()
        store.hold([.propose])
        let end = Task { await host.agent.end() }
        #expect(try await soon { store.gate.hasVisitor })
        #expect(!workload.activity.isRunning)
        // The workload cannot be started any more, whether or not the store has answered.
        async let refusal = host.refusal("cont")
        store.gate.open()
        _ = await end.value
        #expect(await refusal == "this agent is exiting")
        #expect(try standings == [.holding, .released])
        #expect(journal.running == [])
    }

    @Test func `the lease of a workload that has ended by itself is released when its agent exits`() async throws {
        let host = host()
        workload.livesOn.store(true, ordering: .releasing)
        try await host.agent.startWorkload()
        try workload.end("its processor burned")
        try await host.wait(forLine: "the workload has ended: its processor burned")
        #expect(try standings == [.holding])
        await host.agent.end()
        #expect(try standings == [.holding, .released])
    }

    @Test func `a workload that can outlive its agent keeps its lease, and continues`() async throws {
        let host = host()
        workload.livesOn.store(true, ordering: .releasing)
        try await host.agent.startWorkload()
        #expect(await host.agent.end())
        #expect(workload.activity.isRunning)
        #expect(try standings == [.holding])
        try await host.wait(
            forLine: "is not released: test continues to run without this agent; once nobody runs the workload, "
                + "release it as this says: pageferry lease leases/test"
        )
        try workload.stop()
    }

    @Test func `a store that hangs delays an agent's exit for a bounded time`() async throws {
        let host = host()
        try await host.agent.startWorkload()
        store.hold([.newest])
        let begin = ContinuousClock.now
        #expect(await host.agent.end() == false)
        #expect(ContinuousClock.now - begin < .seconds(25))
        #expect(!workload.activity.isRunning)
        try await host.wait(forLine: "is not released: the run lease at leases/test has not answered for 10 s; ")
        store.gate.open()
    }

    @Test func `an agent whose workload has moved away leaves the lease alone`() async throws {
        let ferrying = try await Ferrying(lease: store)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        await ferrying.source.agent.end()
        #expect(try standings == [.holding, .holding])
        await ferrying.destination.agent.end()
        #expect(try standings == [.holding, .holding, .released])
        #expect(ferrying.journal.running == [])
    }

    @Test func `a source that exits before RUN takes its workload back, stops it, and releases the lease`() async throws
    {
        let ferrying = try await Ferrying(lease: store) { $0.disk.behave { $0.load = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-device")
        await ferrying.source.agent.end()
        #expect(try standings == [.holding, .released])
        #expect(ferrying.journal.running == [])
    }

    /// A store whose only record has the last possible epoch, and names the first owner that asks.
    private final class LastEpochStore: RunLeaseStore {
        private let record = Mutex<LeaseRecord?>(nil)
        let name = "last"
        func place(of workload: String) -> String { "last/\(workload)" }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? { record.withLock(\.self) }

        func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
            record.withLock { $0?.epoch == epoch ? $0 : nil }
        }

        func propose(
            _ record: LeaseRecord,
            following predecessor: LeaseRecord?,
            for workload: String
        ) throws(RunLeaseError) -> LeaseProposal {
            self.record.withLock { $0 = LeaseRecord(epoch: .max, owner: record.owner, started: true) }
            return .won
        }
    }

    @Test func `neither side fails at the last possible epoch, in HELLO, in RUN or in a record`() async throws {
        let ferrying = try await Ferrying(lease: LastEpochStore())
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        try await ferrying.source.wait(untilRunning: true)
        let failure = try await ferrying.source.failure
        #expect(failure?.contains("epoch 18446744073709551615 of a run lease is the last one") == true)
        #expect(ferrying.journal.running == ["source"])
        // The link breaks while RUN is pending, so the source asks the lease.
        let other = try await Ferrying(startsStopped: true, lease: LastEpochStore())
        defer { other.end() }
        try await other.migrate()
        try await other.source.wait(for: "postcopy-active")
        other.relay.end()
        try await other.source.wait(for: "postcopy-paused")
        #expect(try await soon { try await other.source.failure?.contains("is the last one") == true })
        #expect(other.journal.running == [])
    }

    @Test func `a workload that waits for a page which never arrives delays its agent's exit for a bounded time`()
        async throws
    {
        let ferrying = try await Ferrying(recovering: .seconds(600), lease: store, pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(untilRunning: true)
        ferrying.relay.end()
        try await ferrying.destination.wait(for: "postcopy-paused")
        // Several of the workload's pages arrived on demand, and the next one does not arrive.
        var seen: UInt64?
        let workload = try #require(ferrying.landing.workload)
        #expect(
            try await soon {
                defer { seen = workload.activity.operations }
                guard seen == workload.activity.operations else { return false }
                try await Task.sleep(for: .milliseconds(50))
                return seen == workload.activity.operations
            }
        )
        await ferrying.destination.agent.end()
        try await ferrying.destination.wait(forLine: "is not released: the workload has not stopped within 5")
        #expect(try standings == [.holding, .holding])
    }

    @Test func `a source that exits while RUN is pending leaves the lease to the destination`() async throws {
        let ferrying = try await Ferrying(startsStopped: true, lease: store)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        await ferrying.source.agent.end()
        #expect(try standings == [.holding])
        try await ferrying.destination.command("cont")
        #expect(ferrying.journal.running == ["destination"])
        #expect(try standings == [.holding, .holding])
    }
}
