import Compression
import Glibc
import LinuxSystem
import PageProtocol
import PageServer
import Synchronization

@testable import PageFetcher

/// Shared memory that waits for its pages, the destination agent that receives them, and their content at the source.
///
/// The agent receives pages straight into a mapping of its own. Call ``end()`` also after a failure.
final class AliasedFerry: Sendable {
    let pageSize: Int
    let content: MemoryRegion
    let file: MemoryFile
    /// The guest's own mapping of the memory.
    let guest: Mapping
    let destination: PageFetcher
    let events: EventLog<PageFetcher.Event>
    /// The events of the lanes of all connections.
    let laneEvents: EventLog<PageFetcher.LaneEvent>
    private let table: RegionTable
    private let threads = ThreadGroup()
    private let lanes = Mutex<[SharedSocket]>([])

    /// Makes memory of `pageCount` pages, of which every third holds zeros.
    ///
    /// - Parameter features: the events that the guest's process raises.
    init(pageCount: Int, pageSize: Int = 4096, raising features: Userfaultfd.Features = []) throws {
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
        let userfaultfd = try Userfaultfd(features: features)
        try userfaultfd.registerMinor(range)
        table = try RegionTable([
            RegionShape(
                name: "guest",
                guestAddress: 0,
                pageSize: UInt32(pageSize),
                pageCount: UInt64(pageCount)
            )
        ])
        let log = try EventLog<PageFetcher.Event>()
        events = log
        laneEvents = try EventLog()
        destination = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: [range],
            resident: [PageBitmap(pageCount: pageCount)],
            aliases: [MemoryAlias(of: file, like: range)],
            table: table,
            prefetch: .none,
            events: features.isEmpty ? nil : MemoryEvents(in: SharedMemory(anonymousBytes: 4096), at: 0)
        ) { log.add($0) }
        try destination.start()
    }

    var pageCount: Int { content.pageCount }
    var zeroPages: Int { pageCount / 3 }
    private var range: PageRange { destination.memory.ranges[0] }

    func page(_ page: Int) -> UnsafeMutableRawPointer { guest.base + page * pageSize }

    /// Connects a source of the content, whose workload has stopped.
    func serve(compression: PushCompression = .none) throws -> PageServer {
        let source = try PageServer(regions: [.mapped(content)], table: table, compression: compression) { _ in }
        let connection = try Connection()
        try source.attach(
            urgent: connection.source.urgent,
            bulk: connection.source.bulks,
            inflating: Set(Codec.allCases)
        )
        // Freeze before the destination repeats the requests of waiting readers.
        source.freeze()
        try attach(connection)
        return source
    }

    /// Connects the test as the source, and returns its ends of the lanes, open until the test shuts them down or ends.
    func connectToTest() throws -> (urgent: SharedSocket, bulk: SharedSocket) {
        let connection = try Connection()
        try attach(connection)
        let (urgent, bulk) = (connection.source.urgent[0], connection.source.bulk)
        lanes.withLock { $0 += [urgent, bulk] }
        return (urgent, bulk)
    }

    private func attach(_ connection: borrowing Connection) throws {
        let (urgent, bulk) = (connection.destination.urgent, connection.destination.bulk)
        try destination.attach(urgent: urgent, bulk: [bulk], inflating: Set(Codec.allCases)) { [laneEvents] in
            laneEvents.add($0)
        }
        destination.waitUntilTurned()
    }

    /// The frame of a run of pages, and the bytes that follow it.
    func frame(_ pages: Range<Int>) -> (frame: LaneFrame, body: [UInt8]) {
        let run = PageRun(region: 0, count: UInt32(pages.count), first: UInt64(pages.lowerBound))
        let bytes = UnsafeRawBufferPointer(start: content.page(pages.lowerBound), count: pages.count * pageSize)
        return (.pages(run, pageSize: UInt32(pageSize)), Array(bytes))
    }

    /// Touches pages on a new thread, and if `writing` writes 255 into the last byte of each.
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

    /// Pages that differ from the source's; if `written`, the last byte must be the written one.
    func wrongPages(written: Bool = false) -> [Int] {
        let compared = written ? pageSize - 1 : pageSize
        return (0..<pageCount).filter { page in
            memcmp(content.page(page), self.page(page), compared) != 0
                || written && self.page(page).load(fromByteOffset: compared, as: UInt8.self) != 255
        }
    }

    /// The reason why the agent stopped placing pages.
    func failure() -> String? {
        laneEvents.first { if case .placementFailed(let reason) = $0 { reason } else { nil } }
    }

    func end() {
        destination.stop()
        try? destination.memory.userfaultfd.unregister(range)
        threads.join()
    }
}
