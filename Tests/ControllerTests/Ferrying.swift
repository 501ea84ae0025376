import Controller
import Glibc
import Guest
import LinuxSystem
import LogLines
import PageProtocol
import QMP
import RunLease
import Switchover

/// A source whose workload runs, a destination that listens, and a relay between them. Call ``end()`` also after a
/// failure.
final class Ferrying: Sendable {
    let journal = Journal()
    let workload: TestWorkload
    /// What the workload's memory held before it moved: the source lets that go when it has moved.
    let content: [MemoryRegion]
    let landing: TestLanding
    let source: Host
    let destination: Host
    let relay: Relay
    /// Where the destination itself listens.
    let address: SocketAddress

    init(
        startsStopped: Bool = false,
        maxPages: Int = 1 << 20,
        cuttingAt forbidden: FrameKind? = nil,
        losing lossy: Relay.Line? = nil,
        recovering recoveryTime: Duration = .zero,
        searching destinationTime: Duration? = nil,
        older: Bool = false,
        refusal: StartRefusalPolicy = .takeBack,
        lease: (any RunLeaseStore)? = nil,
        pushes: Bool = true,
        releasesMemory: Bool = false,
        faultThreads: Int = 1,
        arriving: @escaping @Sendable (TestWorkload) -> Void = { _ in }
    ) async throws {
        workload = try TestWorkload.filled(journal: journal)
        content = try workload.regions.map { region in
            let copy = try MemoryRegion(name: region.name, pageCount: region.pageCount)
            copy.base.copyMemory(from: region.base, byteCount: region.byteCount)
            return copy
        }
        landing = TestLanding(journal: journal, maxPages: maxPages, configure: arriving)
        let log = LogLines()
        var configuration = Agent.Configuration()
        configuration.startsStopped = startsStopped
        configuration.recoveryTime = recoveryTime
        configuration.afterStartRefusal = refusal
        configuration.pushes = pushes
        configuration.releasesMemory = releasesMemory
        configuration.faultThreads = faultThreads
        if let lease { configuration.lease = (lease, "test") }
        source = Host(workload: workload, configuration: configuration, log: log)
        configuration.recoveryTime = destinationTime ?? recoveryTime
        destination = Host(landing: landing, configuration: configuration, log: log)
        address = try await destination.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        relay = try Relay(to: address, cuttingAt: forbidden, losing: lossy, older: older)
        try await source.agent.startWorkload()
    }

    /// `migrate`, and the switchover as soon as it is possible.
    func migrate() async throws {
        try await source.command("migrate", ["uri": .string(relay.address.description)])
        try await source.command("migrate-start-postcopy")
    }

    /// Where the source finds the destination.
    var uri: JSONValue { .string(relay.address.description) }

    /// Moves the workload that has come to the destination on to a third host, which is returned.
    func moveOn() async throws -> Host {
        let third = Host(landing: TestLanding(journal: journal))
        let address = try await third.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        try await destination.command("migrate", ["uri": .string(address.description)])
        try await destination.command("migrate-start-postcopy")
        return third
    }

    /// Pages of the destination that differ from the source's; touches them all.
    func wrongPages() -> [Int]? {
        guard let landed = landing.workload else { return nil }
        return zip(content, landed.regions).flatMap { region, copy in
            (0..<region.pageCount).filter { memcmp(region.page($0), copy.page($0), region.pageSize) != 0 }
        }
    }

    func end() {
        for workload in [workload, landing.workload].compactMap(\.self) {
            workload.disk.gate.open()
            workload.clock.gate.open()
            workload.runGate.open()
        }
        relay.end()
        landing.releaseReaders()
        for workload in [workload, landing.workload].compactMap(\.self) where workload.activity.isRunning {
            try? workload.stop()
        }
    }
}
