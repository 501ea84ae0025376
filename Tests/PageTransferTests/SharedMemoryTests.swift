import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SharedMemoryTests {
    @Test func `every mapping of shared memory sees the pages that arrive`() throws {
        let pageCount = 500
        let file = try MemoryFile(name: "guest", byteCount: pageCount * 4096)
        let guest = try Mapping(sharing: file)
        let other = try Mapping(sharing: file)
        let range = PageRange(
            address: UInt64(UInt(bitPattern: guest.base)),
            pageSize: 4096,
            pageCount: pageCount
        )
        let region = try MemoryRegion(name: "guest", pageCount: pageCount)
        // Some pages hold zeros, which are placed by another call.
        for page in 0..<pageCount where page % 4 != 0 { region.page(page).storeBytes(of: page, as: Int.self) }
        let shape = RegionShape(name: "guest", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
        let table = try RegionTable([shape])
        let userfaultfd = try Userfaultfd()
        try userfaultfd.register(range)
        let events = try EventLog<PageFetcher.Event>()
        let destination = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: [range],
            resident: [PageBitmap(pageCount: pageCount)],
            table: table
        ) { events.add($0) }
        try destination.start()
        defer { destination.stop() }
        let source = try PageServer(regions: [.mapped(region)], table: table) { _ in }
        defer { source.detach() }
        let connection = try Connection()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        try destination.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulk)
        source.freeze()
        #expect((guest.base + 7 * 4096).load(as: Int.self) == 7)
        #expect((guest.base + 8 * 4096).load(as: Int.self) == 0)
        try source.startPush()
        #expect(events.first { if case .everyPageResident = $0 { true } else { nil } } == true)
        #expect(memcmp(guest.base, region.base, region.byteCount) == 0)
        #expect(memcmp(other.base, region.base, region.byteCount) == 0)
    }
}
