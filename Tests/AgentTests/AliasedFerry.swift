import Glibc
import LinuxSystem
import PageProtocol
import SourceAgent
import Synchronization

@testable import DestinationAgent

/// Shared memory that waits for its pages, the agent that receives them straight into a mapping of its own, and what
/// they hold at the source. Call ``end()`` also after a failure.
final class AliasedFerry: Sendable {
    let pageSize: Int
    let content: MemoryRegion
    let file: MemoryFile
    /// What the guest sees.
    let guest: Mapping
    let destination: DestinationAgent
    let events: EventLog<DestinationAgent.Event>
    private let table: RegionTable
    private let threads = ThreadGroup()
    private let lanes = Mutex<[SharedSocket]>([])

    /// Makes memory of these many pages, of which every third holds zeros.
    init(pageCount: Int, pageSize: Int = 4096) throws {
        self.pageSize = pageSize
        content = try MemoryRegion(name: "guest", pageSize: pageSize, pageCount: pageCount)
        for page in 0..<pageCount where page % 3 != 2 {
            memset(content.page(page), CInt(page % 251 + 1), pageSize)
            content.page(page).storeBytes(of: page, as: Int.self)
        }
        file = try MemoryFile(name: "guest", byteCount: pageCount * pageSize, pageSize: pageSize)
        guest = try Mapping(sharing: file)
        let range = PageRange(
            address: UInt64(UInt(bitPattern: guest.base)),
            pageSize: pageSize,
            pageCount: pageCount
        )
        let userfaultfd = try Userfaultfd()
        try userfaultfd.registerMinor(range)
        table = try RegionTable([
            RegionShape(
                name: "guest",
                guestAddress: 0,
                pageSize: UInt32(pageSize),
                pageCount: UInt64(pageCount)
            )
        ])
        let log = try EventLog<DestinationAgent.Event>()
        events = log
        destination = try DestinationAgent(
            userfaultfd: userfaultfd,
            ranges: [range],
            resident: [PageBitmap(pageCount: pageCount)],
            aliases: [MemoryAlias(of: file, like: range)],
            table: table,
            prefetch: .none
        ) { log.add($0) }
        try destination.start()
    }

    var pageCount: Int { content.pageCount }
    var zeroPages: Int { pageCount / 3 }
    private var range: PageRange { destination.memory.ranges[0] }

    func page(_ page: Int) -> UnsafeMutableRawPointer { guest.base + page * pageSize }

    /// A source of the content, whose workload has stopped.
    func serve() throws -> SourceAgent {
        let source = try SourceAgent(regions: [content], table: table) { _ in }
        let connection = try Connection()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        // Before the destination asks again for what is waited for.
        source.freeze()
        try attach(connection)
        return source
    }

    /// A source that the test plays: its ends of the lanes, open until the test shuts them down or ends.
    func connectToTest() throws -> (urgent: SharedSocket, bulk: SharedSocket) {
        let connection = try Connection()
        try attach(connection)
        let (urgent, bulk) = (connection.source.urgent[0], connection.source.bulk)
        lanes.withLock { $0 += [urgent, bulk] }
        return (urgent, bulk)
    }

    private func attach(_ connection: borrowing Connection) throws {
        try destination.attach(
            urgent: connection.destination.urgent,
            bulk: connection.destination.bulk
        )
        destination.waitUntilTurned()
    }

    /// The frame of a run of pages, and what follows it.
    func frame(_ pages: Range<Int>) -> (frame: LaneFrame, body: [UInt8]) {
        let run = PageRun(region: 0, count: UInt32(pages.count), first: UInt64(pages.lowerBound))
        let bytes = UnsafeRawBufferPointer(start: content.page(pages.lowerBound), count: pages.count * pageSize)
        return (.pages(run, pageSize: UInt32(pageSize)), Array(bytes))
    }

    /// Touches pages on a thread of its own, and then writes 255 over the last byte of each where asked to.
    func touch(_ pages: [Int], writing: Bool = false) throws {
        try threads.run("touch") { [self] in
            for page in pages {
                let last = self.page(page) + pageSize - 1
                _ = last.load(as: UInt8.self)
                if writing { last.storeBytes(of: 255, as: UInt8.self) }
            }
        }
    }

    func waitForTouches() { threads.join() }

    func waitUntilResident() -> Bool {
        events.first { if case .everyPageResident = $0 { true } else { nil } } ?? false
    }

    func waitUntilResident(_ page: Int) async {
        while !destination.memory.resident[0].contains(page) { await Task.yield() }
    }

    /// Pages that do not hold what the source held, and in the last byte what was written where that is expected.
    func wrongPages(written: Bool = false) -> [Int] {
        let compared = written ? pageSize - 1 : pageSize
        return (0..<pageCount).filter { page in
            memcmp(content.page(page), self.page(page), compared) != 0
                || written && self.page(page).load(fromByteOffset: compared, as: UInt8.self) != 255
        }
    }

    /// Why pages could be placed no more.
    func failure() -> String? {
        events.first { if case .failed(let reason) = $0 { reason } else { nil } }
    }

    func end() {
        destination.stop()
        try? destination.memory.userfaultfd.unregister(range)
        threads.join()
    }
}
