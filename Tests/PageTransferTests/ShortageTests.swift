import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import SystemPackage
import Testing

@testable import PageFetcher

/// Pages for which no memory is left, and pages that need none.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ShortageTests {
    private static func memory(
        of range: PageRange,
        _ userfaultfd: consuming Userfaultfd,
        waitsForMemory: Bool
    ) throws -> ArrivingMemory {
        let count = UInt64(range.pageCount)
        let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: UInt32(range.pageSize), pageCount: count)
        return try ArrivingMemory(
            userfaultfd: userfaultfd,
            ranges: [range],
            resident: [PageBitmap(pageCount: range.pageCount)],
            table: RegionTable([shape]),
            waitsForMemory: waitsForMemory,
            onEvent: { _ in }
        )
    }

    #if DEBUG
    /// Places page 0 while the kernel has no memory for the first attempts.
    private static func place(in memory: ArrivingMemory, failing count: Int) throws {
        let content = [UInt8](repeating: 9, count: 4096)
        try ForcedErrno.with([.uffdioCopy: [Errno](repeating: .noMemory, count: count)]) {
            try content.withUnsafeBytes { bytes in
                try memory.place(PageRun(region: 0, count: 1, first: 0), from: bytes.baseAddress, origin: .demand)
            }
        }
    }

    @Test func `a page waits for memory, and the shortage is known once it lasts`() throws {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "ram", pageCount: 2)
        try userfaultfd.register(region.range)
        let memory = try Self.memory(of: region.range, userfaultfd, waitsForMemory: true)
        defer { memory.close() }
        #expect(memory.shortage.current(at: MonotonicClock.now()) == nil)
        try Self.place(in: memory, failing: 3)
        #expect(memory.resident[0].contains(0))
        #expect(region.page(0).load(as: UInt8.self) == 9)
        memory.resident[0].remove(0)
        #expect(madvise(region.page(0), 4096, MADV_DONTNEED) == 0)
        try Self.place(in: memory, failing: 9)
        #expect(memory.shortage.current(at: MonotonicClock.now()) == .memory)
        #expect(memory.shortage.current(at: MonotonicClock.now() + 3_000_000_000) == nil)
    }

    @Test func `a page does not wait for memory if its lanes are to end, or the agent is closing`() throws {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "ram", pageCount: 2)
        try userfaultfd.register(region.range)
        let memory = try Self.memory(of: region.range, try userfaultfd.duplicate(), waitsForMemory: false)
        let failure = #expect(throws: PlacementFailure.self) { try Self.place(in: memory, failing: 1) }
        #expect(failure?.reason == "no memory is left on this host to place a page in")
        let closing = try Self.memory(of: region.range, userfaultfd, waitsForMemory: true)
        closing.beginToClose()
        let end = #expect(throws: PlacementFailure.self) { try Self.place(in: closing, failing: 1) }
        #expect(end?.reason == "the agent is closing and places no more pages")
    }
    #endif

    @Test func `a minor fault maps the page of the file, which is not requested`() throws {
        let file = try MemoryFile(name: "guest", byteCount: 4 * 4096)
        try file.write([UInt8](repeating: 7, count: 4096))
        let guest = try SharedMemory(file)
        let base = guest.piece(at: 0, byteCount: 4 * 4096)
        let range = PageRange(address: UInt64(UInt(bitPattern: base)), pageSize: 4096, pageCount: 4)
        let userfaultfd = try Userfaultfd(features: .minorShmem)
        try userfaultfd.registerMinor(range)
        let memory = try Self.memory(of: range, userfaultfd, waitsForMemory: true)
        defer { memory.close() }
        let address = UInt(bitPattern: base)
        let reader = try JoinedThread(name: "reader") {
            let byte = UnsafeRawPointer(bitPattern: address)?.load(as: UInt8.self)
            #expect(byte == 7)
        }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        while events.count == 0 { try memory.userfaultfd.read(into: &events) }
        guard case .fault(let place, _, let kind) = events[0] else { throw Missing(what: "a fault") }
        #expect(kind == .minor)
        var fault = try #require(memory.fault(at: place))
        fault.kind = kind
        #expect(try memory.take(fault, now: 1) == .resident)
        reader.join()
        #expect(memory.progress.found == 1 && memory.progress.pagesResident == 1)
        #expect(memory.progress.waiting == 0)
        // The source's content of the page never replaces the page.
        let content = [UInt8](repeating: 9, count: 4096)
        try content.withUnsafeBytes { bytes in
            try memory.place(PageRun(region: 0, count: 1, first: 0), from: bytes.baseAddress, origin: .push)
        }
        #expect(base.load(as: UInt8.self) == 7)
        #expect(memory.progress.duplicate == 1)
    }
}
