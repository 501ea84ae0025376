import Controller
import Glibc
import Guest
import Identity
import LinuxSystem
import LogLines
import PageProtocol
import QMP
import RunLease
import Switchover
import Synchronization

/// A source whose workload runs, a destination that listens, and a relay between them.
///
/// Call ``end()`` also after a failure.
final class Ferrying: Sendable {
    let journal = Journal()
    let workload: TestWorkload
    /// A copy of the workload's memory before the move, since the source releases its memory after the move.
    let content: [MemoryRegion]
    let landing: TestLanding
    let source: Host
    let destination: Host
    let relay: Relay
    /// The clock that both agents' time limits go by.
    let clock = TestClock()
    /// The address at which the destination itself listens.
    let address: SocketAddress

    init(
        startsStopped: Bool = false,
        maxPages: Int = 1 << 20,
        cuttingAt forbidden: FrameKind? = nil,
        losing lossy: Relay.Line? = nil,
        recovering recoveryTime: Duration = .zero,
        searching destinationTime: Duration? = nil,
        answering wordTime: Duration = .seconds(60),
        older: Bool = false,
        refusal: StartRefusalPolicy = .takeBack,
        lease: (any RunLeaseStore)? = nil,
        pushes: Bool = true,
        pushLanes: Int? = nil,
        releasesMemory: Bool = false,
        peerTimeout: Duration? = nil,
        faultThreads: Int = 1,
        insecure: Bool = false,
        files: MemoryFiles? = nil,
        arriving: @escaping @Sendable (TestWorkload) -> Void = { _ in }
    ) async throws {
        workload = try TestWorkload.filled(journal: journal)
        if let files {
            let copies = try files.add(workload.regions)
            workload.copies.withLock { $0 = copies }
        }
        content = try workload.regions.map { region in
            let copy = try MemoryRegion(name: region.name, pageCount: region.pageCount)
            copy.base.copyMemory(from: region.base, byteCount: region.byteCount)
            return copy
        }
        landing = TestLanding(journal: journal, maxPages: maxPages, configure: arriving)
        let log = LogLines()
        var configuration = Agent.Configuration()
        configuration.clock = clock
        configuration.startsStopped = startsStopped
        configuration.recoveryTime = recoveryTime
        configuration.wordTime = wordTime
        configuration.afterStartRefusal = refusal
        configuration.pushes = pushes
        configuration.pushLanes = pushLanes
        configuration.releasesMemory = releasesMemory
        if let peerTimeout { configuration.peerTimeout = peerTimeout }
        configuration.faultThreads = faultThreads
        configuration.isInsecure = insecure
        if let lease { configuration.lease = (lease, "test") }
        source = Host(workload: workload, configuration: configuration, log: log)
        configuration.recoveryTime = destinationTime ?? recoveryTime
        destination = Host(landing: landing, configuration: configuration, log: log)
        address = try await destination.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        relay = try Relay(to: address, cuttingAt: forbidden, losing: lossy, older: older)
        try await source.agent.startWorkload()
    }

    /// Runs `migrate`, and the switchover as soon as it is possible.
    func migrate() async throws {
        try await source.command("migrate", ["uri": .string(relay.address.description)])
        try await source.command("migrate-start-postcopy")
    }

    /// The address at which the source connects to the destination.
    var uri: JSONValue { .string(relay.address.description) }

    /// Moves the workload from the destination on to a third host, and returns that host.
    func moveOn() async throws -> Host {
        let third = Host(landing: TestLanding(journal: journal))
        let address = try await third.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        try await destination.command("migrate", ["uri": .string(address.description)])
        try await destination.command("migrate-start-postcopy")
        return third
    }

    /// Touches all pages of the destination, and returns those that differ from the source's.
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
            workload.preparationGate.open()
        }
        relay.end()
        landing.releaseReaders()
        for workload in [workload, landing.workload].compactMap(\.self) where workload.activity.isRunning {
            try? workload.stop()
        }
    }
}
