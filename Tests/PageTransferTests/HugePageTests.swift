import Glibc
import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HugePageTests {
    private static let size = HugePagePool.pageSize

    @Test func `faults fetch every huge page, including zero pages, and no page is requested ahead`() throws {
        try HugePages.with(free: 32) {
            let ferry = try Ferry(pageCounts: [13, 3], pageSize: Self.size, prefetch: .streams())
            defer { ferry.end() }
            let (source, events) = try ferry.serve()
            defer { source.detach() }
            try ferry.touch(region: 0, Array(0..<13))
            try ferry.touch(region: 0, (0..<13).shuffled())
            try ferry.touch(region: 1, [2, 0, 1])
            ferry.waitForReaders()
            #expect(ferry.waitUntilResident())
            #expect(events.waitUntilSent())
            #expect(ferry.wrongPages() == [])
            let progress = ferry.destination.progress
            #expect(progress.demand == 16)
            #expect(progress.prefetched == 0)
            #expect(progress.waiting == 0)
            #expect(source.progress.bytesSent == (16 - ferry.zeroPages) * Self.size)
        }
    }

    @Test func `the push alone delivers every huge page and sends no zero page`() throws {
        try HugePages.with(free: 32) {
            let ferry = try Ferry(pageCounts: [13, 3], pageSize: Self.size)
            defer { ferry.end() }
            let (source, _) = try ferry.serve()
            defer { source.detach() }
            try source.startPush()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
            let progress = ferry.destination.progress
            #expect(progress.zero == ferry.zeroPages && ferry.zeroPages == 5)
            #expect(progress.pushed == 11)
            #expect(progress.duplicate == 0)
        }
    }

    /// Memory of unreserved huge pages, so that the pool can be empty when a page is placed.
    private static func unreserved(pageCount: Int) -> PageRange {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE | 21 << MAP_HUGE_SHIFT
        let base = mmap(nil, pageCount * size, PROT_READ | PROT_WRITE, flags, -1, 0)
        return PageRange(address: UInt64(UInt(bitPattern: base)), pageSize: size, pageCount: pageCount)
    }

    @Test(arguments: [true, false])
    func `a huge page does not count as placed if the pool is empty`(isZero: Bool) throws {
        try HugePages.with(free: 2) {
            let range = Self.unreserved(pageCount: 2)
            defer { munmap(UnsafeMutableRawPointer(bitPattern: UInt(range.address)), Int(range.byteCount)) }
            let userfaultfd = try Userfaultfd()
            try userfaultfd.register(range)
            let shape = RegionShape(name: "huge", guestAddress: 0, pageSize: UInt32(Self.size), pageCount: 2)
            let memory = try ArrivingMemory(
                userfaultfd: userfaultfd,
                ranges: [range],
                resident: [PageBitmap(pageCount: 2)],
                table: RegionTable([shape]),
                onEvent: { _ in }
            )
            defer { memory.close() }
            let content = try Mapping(anonymousBytes: Self.size)
            content.base.initializeMemory(as: UInt8.self, repeating: isZero ? 0 : 9, count: Self.size)
            let run = PageRun(region: 0, count: 1, first: 1)
            func place() throws {
                try memory.place(run, from: isZero ? nil : UnsafeRawPointer(content.base), origin: .demand)
            }
            do {
                let all = try MemoryRegion(name: "all", pageSize: Self.size, pageCount: 2)
                let failure = try #require(throws: PlacementFailure.self) {
                    try withExtendedLifetime(all) { try place() }
                }
                #expect(failure.reason.hasPrefix("no huge page is left on this host to place a page in"))
                #expect(memory.progress.pagesResident == 0 && memory.progress.duplicate == 0)
                #expect(memory.resident[0].count == 0)
            }
            // The pool has pages again, and the next copy of the page is placed.
            try place()
            try #require(memory.resident[0].contains(1) && memory.resident[0].count == 1)
            let page = UnsafeMutableRawPointer(bitPattern: UInt(range.address(ofPage: 1)))
            #expect(page.map { memcmp($0, content.base, Self.size) } == 0)
            // A late copy does not overwrite a page that has arrived and was written since.
            page?.storeBytes(of: 5, as: UInt8.self)
            try place()
            #expect(page?.load(as: UInt8.self) == 5)
            #expect(memory.progress.duplicate == 1)
        }
    }

    @Test(arguments: [false, true])
    func `two lanes that deliver the same huge pages place each page once`(inThread: Bool) throws {
        try HugePages.with(free: 64) {
            let ferry = try Ferry(pageCounts: [32], pageSize: Self.size, inThread: inThread)
            defer { ferry.end() }
            let (source, _) = try ferry.serve()
            defer { source.detach() }
            try ferry.touch(region: 0, Array(0..<32))
            try ferry.touch(region: 0, (0..<32).reversed())
            try source.startPush()
            ferry.waitForReaders()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
            let progress = ferry.destination.progress
            #expect(progress.demand + progress.pushed + progress.zero == 32)
            #expect(ferry.destinationEvents.all.allSatisfy { if case .everyPageResident = $0 { true } else { false } })
        }
    }
}
