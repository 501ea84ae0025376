import Foundation
import Glibc
import LinuxSystem
import OwnThread
import QMP
import Synchronization
import Testing

/// Memory files that a test can shrink, as another process may do.
final class MemoryFiles: Sendable {
    private final class File: Sendable {
        let file: MemoryFile
        init(_ file: consuming MemoryFile) { self.file = file }
    }

    private let files = Mutex<[File]>([])

    /// Makes a file with the content of each region.
    func add(_ regions: [MemoryRegion]) throws -> [SourceRegion] {
        try regions.map { region in
            let file = try MemoryFile(name: region.name, byteCount: region.byteCount)
            try file.write(Array(UnsafeRawBufferPointer(start: region.base, count: region.byteCount)))
            let copy = SourceRegion.ofFile(try FileRegion(of: file, like: region.range))
            let kept = File(file)
            files.withLock { $0.append(kept) }
            return copy
        }
    }

    func shrink() throws {
        for kept in files.withLock(\.self) {
            guard truncate(kept.file.path, 0) == 0 else { throw Host.NeverCame() }
        }
    }
}

@Suite("A migration whose source loses memory", .ownThread, .serialized, .timeLimit(.minutes(2)))
struct LostMemoryTests {
    private static let loss = "memory of the workload is lost at the source: page "

    /// Reads a page at the destination, and waits for it until the test ends.
    private func touch(_ page: Int, of ferrying: Ferrying) throws {
        let address = UInt(bitPattern: try #require(ferrying.landing.workload).regions[0].page(page))
        Thread { _ = UnsafePointer<UInt8>(bitPattern: address)?.pointee }.start()
    }

    @Test func `is paused with the reason at both sides, and is not tried again by itself`() async throws {
        let files = MemoryFiles()
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false, files: files) {
            $0.leavesMemoryAlone.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        try files.shrink()
        try touch(17, of: ferrying)
        try await ferrying.source.wait(for: "postcopy-paused")
        try await ferrying.destination.wait(for: "postcopy-paused")
        let reason =
            "\(Self.loss)17 of region 0 cannot be sent: cannot read 4096 bytes at byte \(17 * 4096) of a memory "
        let here = try await ferrying.source.failure
        let there = try await ferrying.destination.command("pageferry-report")["error"]?.string
        #expect(here?.hasPrefix(reason) == true, "\(here ?? "")")
        #expect(here?.contains("the file was shrunk; at least 640 of 640 pages have not arrived") == true)
        #expect(here?.hasSuffix("; the workload has started on the destination") == true)
        #expect(there?.contains("the source reports: \(reason)") == true, "\(there ?? "")")
        // Both agents log to the same lines.
        #expect(ferrying.source.lines(containing: "the source reports: \(reason)") == 1)
        #expect(ferrying.source.lines(containing: reason) == 2)
        #expect(!ferrying.source.passed.contains("postcopy-recover-setup"))
        // The operator's attempt ends in the same way, and no other follows.
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        #expect(try await soon { ferrying.source.passed.contains("postcopy-recover") })
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(try await soon { ferrying.source.lines(containing: "; if it can be read again, run recover") == 2 })
        #expect(ferrying.source.passed.count { $0 == "postcopy-recover-setup" } == 1)
        #expect(try await ferrying.source.failure?.hasPrefix(Self.loss) == true)
    }

    @Test func `is tried once more if it is not known whether the workload has started`() async throws {
        let files = MemoryFiles()
        let ferrying = try await Ferrying(recovering: .seconds(60), files: files) {
            $0.leavesMemoryAlone.store(true, ordering: .releasing)
            $0.holdsRun.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        ferrying.workload.disk.behave { $0.release = .waits }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.workload.disk.gate.hasVisitor })
        try files.shrink()
        ferrying.workload.disk.gate.open()
        #expect(try await soon { ferrying.source.lines(containing: "; if it can be read again, run recover") == 2 })
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(ferrying.source.passed.count { $0 == "postcopy-recover-setup" } == 1)
        #expect(try await ferrying.source.failure?.contains("the workload runs on the destination is unknown") == true)
        try #require(ferrying.landing.workload).runGate.open()
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        #expect(
            try await soon {
                try await ferrying.source.failure?.contains("the workload has started on the destination") == true
            }
        )
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(ferrying.source.lines(containing: "; if it can be read again, run recover") == 3)
    }
}
