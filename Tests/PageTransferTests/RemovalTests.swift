import Glibc
import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Synchronization
import Testing

@testable import PageFetcher

/// Memory of a process that drops some of its pages, as a guest with a balloon does.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct RemovalTests {
    @Test(arguments: [1, 3])
    func `a page that was dropped before its arrival reads as zeros, and the push does not bring it back`(
        faultThreads: Int
    ) throws {
        let ferry = try Ferry(pageCounts: [64, 64], zeroEvery: 1000, faultThreads: faultThreads, dropsMemory: true)
        defer { ferry.end() }
        #expect(ferry.drop(10..<20, region: 1))
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == Array(10..<20))
        for page in 10..<20 { #expect(ferry.isZero(page, region: 1)) }
        #expect(ferry.destination.progress.removed == 10)
    }

    @Test func `a page that is dropped while it is in flight is not placed, and its reader sees zeros`() throws {
        let ferry = try Ferry(pageCounts: [64], dropsMemory: true)
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        try ferry.touch(region: 0, [7])
        let frame = try #require(try peer.urgent.stream.receiveFrame())
        #expect(frame.run.first == 7)
        #expect(ferry.drop(7..<8, region: 0))
        // The reader was woken, has faulted again, and was given zeros.
        ferry.waitForReaders()
        let bytes = [UInt8](repeating: 0xaa, count: 4096)
        try peer.urgent.stream.send(.pages(frame.run, pageSize: 4096), body: bytes)
        try peer.bulk.stream.send(.pages(PageRun(region: 0, count: 2, first: 7), pageSize: 4096), body: bytes + bytes)
        // The next page of the same frame is placed.
        #expect(ferry.arriving[0].page(8).load(as: UInt8.self) == 0xaa)
        #expect(ferry.isZero(7, region: 0))
    }

    @Test func `a page that was dropped and then written is not overwritten`() throws {
        let ferry = try Ferry(pageCounts: [64], dropsMemory: true)
        defer { ferry.end() }
        #expect(ferry.drop(0..<64, region: 0))
        ferry.arriving[0].page(3).storeBytes(of: 0x55, as: UInt8.self)
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        try ferry.touch(region: 0, Array(0..<64))
        ferry.waitForReaders()
        #expect(ferry.arriving[0].page(3).load(as: UInt8.self) == 0x55)
        for page in 0..<64 where page != 3 { #expect(ferry.isZero(page, region: 0)) }
    }

    /// Threads drop and write pages of their own while other threads read all pages and the push delivers what it can.
    ///
    /// A page holds the source's content until it is dropped, and from then on zeros or what was written.
    @Test(arguments: [1, 2])
    func `pages that are dropped and written during the push never come back`(faultThreads: Int) throws {
        let pageCount = 6000
        let ferry = try Ferry(
            pageCounts: [pageCount],
            zeroEvery: 5,
            prefetch: .streams(),
            faultThreads: faultThreads,
            dropsMemory: true
        )
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        let wrong = Atomic<Int>(0)
        let droppers = ThreadGroup()
        let lane = Box(wrong: wrong)
        for dropper in 0..<3 {
            try droppers.run("drop") {
                // Each dropper has ranges of its own, and drops some of them twice.
                for first in Self.ranges(of: dropper, pageCount) + Self.ranges(of: dropper, 960) {
                    let pages = first..<first + 1 + first % 8
                    if !ferry.drop(pages, region: 0) { lane.wrong.add(1, ordering: .relaxed) }
                    for page in pages {
                        if !ferry.isZero(page, region: 0) { lane.wrong.add(1, ordering: .relaxed) }
                        if page % 2 == 0 { ferry.arriving[0].page(page).storeBytes(of: 0x77, as: UInt8.self) }
                    }
                }
            }
        }
        for reader in 0..<4 { try ferry.touch(region: 0, Array(stride(from: reader, to: pageCount, by: 4)).shuffled()) }
        try source.startPush()
        droppers.join()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(lane.wrong.load(ordering: .relaxed) == 0)
        var dropped = Set<Int>()
        for dropper in 0..<3 {
            for first in Self.ranges(of: dropper, pageCount) { dropped.formUnion(first..<first + 1 + first % 8) }
        }
        let unexpected = (0..<pageCount).filter { page in
            let copy = ferry.arriving[0].page(page)
            if dropped.contains(page) {
                let first = copy.load(as: UInt8.self)
                return first != (page % 2 == 0 ? 0x77 : 0)
                    || (1..<4096).contains { copy.load(fromByteOffset: $0, as: UInt8.self) != 0 }
            }
            return memcmp(ferry.regions[0].page(page), copy, Ferry.pageSize) != 0
        }
        #expect(unexpected == [])
    }

    @Test func `removals that a process had read before it died hold for the next process`() throws {
        let host = try Surviving(pageCount: 32)
        defer { host.end() }
        // The first process reads the event, which lets the dropper continue, and dies before it notes the event.
        let dropper = try JoinedThread(name: "drop") { _ = madvise(host.region.page(4), 3 * 4096, MADV_DONTNEED) }
        do {
            var events = Userfaultfd.EventBuffer(capacity: 64, in: host.memory, at: 0)
            while events.count == 0 {
                _ = try host.userfaultfd.wait(or: host.never)
                try host.userfaultfd.read(into: &events)
            }
        }
        dropper.join()
        try host.serveAll()
        for page in 0..<32 {
            #expect(host.region.page(page).load(as: UInt8.self) == ((4..<7).contains(page) ? 0 : 0x5a), "\(page)")
        }
    }

    @Test func `a fault that a process had read before it died is served by the next process`() throws {
        let host = try Surviving(pageCount: 32)
        defer { host.end() }
        let reader = try JoinedThread(name: "read") { _ = host.region.page(9).load(as: UInt8.self) }
        do {
            var events = Userfaultfd.EventBuffer(capacity: 64, in: host.memory, at: 0)
            while events.count == 0 {
                _ = try host.userfaultfd.wait(or: host.never)
                try host.userfaultfd.read(into: &events)
            }
        }
        try host.serveAll()
        reader.join()
        #expect(host.region.page(9).load(as: UInt8.self) == 0x5a)
    }

    @Test func `a huge page that a process had placed before it died counts as resident`() throws {
        try HugePages.with(free: 4) { try placeAgain() }
    }

    private func placeAgain() throws {
        let host = try Surviving(pageCount: 2, pageSize: HugePagePool.pageSize)
        defer { host.end() }
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: HugePagePool.pageSize, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: 0x11, count: HugePagePool.pageSize)
        defer { bytes.deallocate() }
        let placed = host.userfaultfd.copy(
            to: host.region.range.address,
            from: bytes,
            byteCount: HugePagePool.pageSize
        )
        #expect(placed == .placed(bytes: HugePagePool.pageSize))
        try host.serveAll()
        #expect(host.region.page(0).load(as: UInt8.self) == 0x11)
        #expect(host.region.page(1).load(as: UInt8.self) == 0x5a)
        #expect(try PageTable(of: getpid()).isPresent(host.region.range.address(ofPage: 1)))
    }

    private static func ranges(of dropper: Int, _ pageCount: Int) -> [Int] {
        Array(stride(from: dropper * 8, to: pageCount - 8, by: 27))
    }

    private final class Box: Sendable {
        let wrong: Atomic<Int>
        init(wrong: consuming Atomic<Int>) { self.wrong = wrong }
    }
}

/// Memory that outlives the process that serves it, with the records that such a process leaves to the next.
private final class Surviving: Sendable {
    let region: MemoryRegion
    let userfaultfd: Userfaultfd
    let memory: SharedMemory
    let never: EventDescriptor
    private let agent = Mutex<PageFetcher?>(nil)

    init(pageCount: Int, pageSize: Int = 4096) throws {
        region = try MemoryRegion(name: "ram", pageSize: pageSize, pageCount: pageCount)
        userfaultfd = try Userfaultfd(features: .eventRemove)
        try userfaultfd.register(region.range)
        memory = try SharedMemory(MemoryFile(name: "session", byteCount: 8192))
        never = try EventDescriptor()
    }

    /// Serves as the next process does, until every page is resident and holds 0x5a.
    func serveAll() throws {
        let log = try EventLog<PageFetcher.Event>()
        let shape = RegionShape(
            name: "ram",
            guestAddress: 0,
            pageSize: UInt32(region.pageSize),
            pageCount: UInt64(region.pageCount)
        )
        let agent = try PageFetcher(
            userfaultfd: userfaultfd.duplicate(),
            ranges: [region.range],
            resident: [PageBitmap(pageCount: region.pageCount, in: memory, at: 4096)],
            table: RegionTable([shape]),
            events: MemoryEvents(in: memory, at: 0),
            pageTable: PageTable(of: getpid())
        ) { log.add($0) }
        self.agent.withLock { $0 = agent }
        try agent.start()
        let connection = try Connection()
        try agent.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulk)
        let content = try MemoryRegion(name: "ram", pageSize: region.pageSize, pageCount: region.pageCount)
        content.base.initializeMemory(as: UInt8.self, repeating: 0x5a, count: content.byteCount)
        let source = try PageServer(regions: [.mapped(content)], table: RegionTable([shape])) { _ in }
        defer { source.detach() }
        source.freeze()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        try source.startPush()
        #expect(log.first { if case .everyPageResident = $0 { true } else { nil } } ?? false)
    }

    func end() {
        agent.withLock { $0 }?.stop()
        try? userfaultfd.unregister(region.range)
    }
}

extension Ferry {
    /// Drops pages of the destination's memory; the call blocks until the destination has read the event.
    func drop(_ pages: Range<Int>, region: Int) -> Bool {
        madvise(arriving[region].page(pages.lowerBound), pages.count * Ferry.pageSize, MADV_DONTNEED) == 0
    }

    func isZero(_ page: Int, region: Int) -> Bool {
        ZeroScan.isZero(arriving[region].page(page), byteCount: Ferry.pageSize)
    }
}
