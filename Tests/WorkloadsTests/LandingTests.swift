import Glibc
import Guest
import LandedGuest
import LinuxSystem
import Synchronization
import Telemetry
import Testing

@testable import Workloads

/// A service that answers faults with pages of other memory in this process.
private final class FaultService: Sendable {
    private let userfaultfd: Userfaultfd
    private let ending: EventDescriptor
    private let ranges: [PageRange]
    private let resident: [PageBitmap]
    private let source: [GuestRegion]
    private let placements = Atomic<Int>(0)

    /// The number of placed pages, counted before their waiters wake.
    var placed: Int { placements.load(ordering: .acquiring) }

    init(
        _ userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        source: [GuestRegion]
    ) throws {
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.resident = resident
        self.source = source
        ending = try EventDescriptor()
    }

    /// Serves faults on another thread while `body` runs.
    func serve(_ body: () throws -> Void) throws {
        let thread = try JoinedThread(name: "faults") { self.loop() }
        let result = Result(catching: body)
        ending.raise()
        thread.join()
        try result.get()
    }

    private func loop() {
        var events = Userfaultfd.EventBuffer(capacity: 16)
        do {
            while try userfaultfd.wait(or: ending) == .events {
                try userfaultfd.read(into: &events)
                for index in 0..<events.count {
                    if case .fault(let address, _, _) = events[index] { place(address) }
                }
            }
        } catch {
            Issue.record(error)
        }
    }

    private func place(_ address: UInt64) {
        for (region, range) in ranges.enumerated() where address >= range.address {
            let page = Int((address - range.address) / UInt64(range.pageSize))
            guard page < range.pageCount else { continue }
            let bytes = source[region].memory.page(page)
            placements.add(1, ordering: .acquiringAndReleasing)
            #expect(
                userfaultfd.copy(to: range.address(ofPage: page), from: bytes, byteCount: 4096) == .placed(bytes: 4096)
            )
            resident[region].insert(page)
        }
    }
}

@Suite("A landing", .timeLimit(.minutes(1)))
struct LandingTests {
    @Test(
        "makes a workload whose pages arrive by faults, and whose threads count each wait",
        .enabled("needs userfaultfd") { (try? Userfaultfd()) != nil },
        arguments: AccessPattern.allCases
    )
    func arrives(pattern: AccessPattern) throws {
        let source = try BuiltInWorkload(new: .small(pattern, threads: 2, devices: [.readsMemory]))
        try source.run(operations: 1000)
        let saved = try source.devices.save()

        let prepared = try BuiltInLanding().land(source.description)
        let (ranges, resident) = (prepared.memory.ranges, prepared.memory.resident)
        let destination = try #require(prepared.workload as? BuiltInWorkload)
        #expect(ranges == destination.regions.map(\.memory.range))
        let service = try FaultService(
            prepared.takeUserfaultfd(),
            ranges: ranges,
            resident: resident,
            source: source.regions
        )
        try service.serve {
            _ = try destination.devices.load(saved)
            let loaded = service.placed
            #expect(loaded == 3 * MemoryReadingDevice.pagesPerRegion)
            #expect(LatencySummary(destination.stalls).count == 0)

            try destination.run(operations: 300)
            let touched = service.placed - loaded
            let stalls = LatencySummary(destination.stalls)
            #expect(touched > 0 && stalls.count == UInt64(touched))
            #expect(stalls.p50 > 0)

            #expect(destination.verify() == Verification(pagesChecked: 500, corrupt: 0))
            #expect(LatencySummary(destination.stalls).count == stalls.count)
        }
        #expect(service.placed == 500 && resident.allSatisfy { $0.isFull })
    }

    @Test("refuses a workload that needs more memory than there is")
    func tooLarge() {
        let configuration = WorkloadConfiguration(memoryBytes: 512 << 30)
        let error = #expect(throws: WorkloadError.self) { _ = try BuiltInLanding().land(configuration.description) }
        #expect(error?.description.contains("needs 524288 MiB of memory, and this host has") == true)
    }

    @Test("refuses a workload that needs more huge pages than there are, and says how many are free")
    func tooManyHugePages() {
        let configuration = WorkloadConfiguration(memoryBytes: 512 << 30, pageSize: 2 << 20)
        let error = #expect(throws: WorkloadError.self) { _ = try BuiltInLanding().land(configuration.description) }
        let line = error?.description ?? ""
        #expect(line.hasPrefix("the workload needs 262144 huge pages of 2 MiB, and on this host "))
        #expect(line.contains(" are free; add some: sysctl vm.nr_hugepages="))
    }

    @Test("refuses a description that it cannot read")
    func unknown() {
        var description = WorkloadConfiguration.small(.random).description
        description.kind = "kvm"
        #expect(throws: WorkloadError.self) { _ = try BuiltInLanding().land(description) }
    }
}
