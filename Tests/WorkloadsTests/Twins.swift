import Glibc
@_spi(Controller) import Guest
import LinuxSystem

@testable import Workloads

extension WorkloadConfiguration {
    /// A small workload of a few regions of different sizes.
    static func small(
        _ pattern: AccessPattern,
        pages: Int = 500,
        threads: Int = 1,
        writes: Double = 0.5,
        thinkTime: UInt64 = 0,
        load: LineFile? = nil,
        devices: [DeviceSpecification] = [],
        hasLedger: Bool = true
    ) -> WorkloadConfiguration {
        WorkloadConfiguration(
            pattern: pattern,
            memoryBytes: pages * 4096,
            regionCount: 3,
            threads: threads,
            writeFraction: writes,
            thinkTime: thinkTime,
            seed: 42,
            load: load,
            devices: devices,
            hasLedger: hasLedger
        )
    }
}

extension BuiltInWorkload {
    /// Moves the workload into other memory: copies its pages byte by byte and loads its devices.
    func moved() throws -> BuiltInWorkload {
        let regions = try configuration.regions.map { shape in
            GuestRegion(memory: try MemoryRegion(name: shape.name, pageCount: shape.pageCount))
        }
        for (old, new) in zip(self.regions, regions) {
            new.memory.base.copyMemory(from: old.memory.base, byteCount: old.memory.byteCount)
        }
        let arrived = try BuiltInWorkload(
            WorkloadConfiguration(description),
            regions: regions,
            origin: .arriving(disksIn: [AllowedFolder("/tmp")])
        )
        _ = try arrived.devices.load(try devices.save())
        return arrived
    }

    func run() throws {
        _ = try run(RunPermit(DevicesLoaded.inPlace()))
    }

    /// Runs until all threads together have done `operations` more operations, and stops.
    func run(operations: UInt64) throws {
        try run()
        while activity.operationsSinceStart < operations { sched_yield() }
        stop()
    }

    var versions: [UInt32] { Array(UnsafeBufferPointer(start: memory.ledger, count: memory.pageCount)) }

    var corrupt: Int? { verify()?.corrupt }

    /// The page of an index in the workload's numbering.
    func page(_ index: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: memory.access(recordingIn: nil).arrive(at: index), count: 4096)
    }

    /// Whether memory, ledger and threads are the same as another's.
    func isTwin(of other: BuiltInWorkload) -> Bool {
        zip(regions, other.regions).allSatisfy { mine, others in
            memcmp(mine.memory.base, others.memory.base, mine.memory.byteCount) == 0
        } && versions == other.versions && threads.map(\.state) == other.threads.map(\.state)
    }
}

/// A file that is removed when the test no longer needs it.
final class TemporaryFile {
    let path: String

    init(_ bytes: [UInt8]) throws {
        var template = Array("/tmp/pageferry-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        let written = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        guard written == bytes.count else { throw WorkloadError("cannot write \(path)") }
    }

    deinit {
        unlink(path)
    }
}
