import Compression
import Glibc
import LinuxSystem
import PageProtocol
import PageServer

@testable import PageFetcher

/// Memory with content at a source, memory that waits for it at a destination, and the two agents.
final class Ferry: Sendable {
    static let pageSize = 4096
    let regions: [MemoryRegion]
    let arriving: [MemoryRegion]
    let table: RegionTable
    private let faultThreads: Int
    let destination: PageFetcher
    let destinationEvents: EventLog<PageFetcher.Event>
    /// The events of the lanes of all connections.
    let laneEvents: EventLog<PageFetcher.LaneEvent>
    private let readers = ThreadGroup()

    /// Makes a region for each number of pages.
    ///
    /// Every page whose index is a multiple of `zeroEvery` holds zeros.
    init(
        pageCounts: [Int],
        pageSize: Int = Ferry.pageSize,
        zeroEvery: Int = 4,
        prefetch: Prefetch = .none,
        inThread: Bool = false,
        faultThreads: Int = 1,
        dropsMemory: Bool = false,
        readsEvents: Bool = true,
        starts: Bool = true
    ) throws {
        self.faultThreads = faultThreads
        var regions: [MemoryRegion] = []
        for (index, count) in pageCounts.enumerated() {
            let region = try MemoryRegion(name: "region\(index)", pageSize: pageSize, pageCount: count)
            for page in 0..<count where page % zeroEvery != 0 {
                for offset in stride(from: 0, to: pageSize, by: 8) {
                    let value = UInt64(index) << 56 | UInt64(page) << 24 | UInt64(offset)
                    region.page(page).storeBytes(of: value | 1, toByteOffset: offset, as: UInt64.self)
                }
            }
            regions.append(region)
        }
        self.regions = regions
        let userfaultfd =
            try inThread
            ? Userfaultfd(features: .sigbus)
            : Userfaultfd(features: dropsMemory ? .eventRemove : [], wished: .threadID)
        var arriving: [MemoryRegion] = []
        var address: UInt64 = 0
        var shapes: [RegionShape] = []
        for region in regions {
            let copy = try MemoryRegion(name: region.name, pageSize: pageSize, pageCount: region.pageCount)
            try userfaultfd.register(copy.range)
            arriving.append(copy)
            shapes.append(
                RegionShape(
                    name: region.name,
                    guestAddress: address,
                    pageSize: UInt32(region.pageSize),
                    pageCount: UInt64(region.pageCount)
                )
            )
            address += UInt64(region.byteCount)
        }
        self.arriving = arriving
        table = try RegionTable(shapes)
        let log = try EventLog<PageFetcher.Event>()
        destinationEvents = log
        laneEvents = try EventLog()
        destination = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: arriving.map(\.range),
            resident: arriving.map { try PageBitmap(pageCount: $0.pageCount) },
            table: table,
            prefetch: prefetch,
            faultThreads: faultThreads,
            resolvesInThread: inThread,
            events: dropsMemory && readsEvents
                ? MemoryEvents(in: SharedMemory(anonymousBytes: (MemoryEvents.byteCount + 4095) & ~4095), at: 0) : nil
        ) { log.add($0) }
        if starts { try destination.start() }
    }

    /// Another source of the same memory, which has sent nothing yet.
    ///
    /// - Parameter copies: memory with the same content that is sent instead.
    func makeSource(
        of copies: [SourceRegion]? = nil,
        releasesMemory: Bool = false,
        compression: PushCompression = .none
    ) throws -> (PageServer, EventLog<PageServer.Event>) {
        let log = try EventLog<PageServer.Event>()
        let memory = copies ?? regions.map { .mapped($0) }
        return (
            try PageServer(
                regions: memory,
                table: table,
                releasesMemory: releasesMemory,
                compression: compression
            ) { log.add($0) },
            log
        )
    }

    /// Another source of the same memory, whose workload has stopped, joined to the destination.
    func serve(
        _ copies: [SourceRegion]? = nil,
        releasesMemory: Bool = false,
        compression: PushCompression = .none,
        bulkLanes: Int = 1
    ) throws -> (PageServer, EventLog<PageServer.Event>) {
        let (source, events) = try makeSource(of: copies, releasesMemory: releasesMemory, compression: compression)
        try connect(source, bulkLanes: bulkLanes)
        source.freeze()
        return (source, events)
    }

    /// Joins a source to the destination.
    func connect(_ source: PageServer, bulkLanes: Int = 1) throws {
        let connection = try Connection(urgentLanes: faultThreads, bulkLanes: bulkLanes)
        try source.attach(
            urgent: connection.source.urgent,
            bulk: connection.source.bulks,
            inflating: Set(Codec.allCases)
        )
        try attach(connection, answersAhead: true)
    }

    /// Connects the test to the destination as its source.
    ///
    /// - Parameter answersAhead: whether the test answers AHEAD_REQUEST.
    /// - Returns: the test's ends of the first urgent lane and of the bulk lane.
    func connectToTest(answersAhead: Bool = true) throws -> (urgent: SharedSocket, bulk: SharedSocket) {
        let connection = try Connection(urgentLanes: faultThreads)
        try attach(connection, answersAhead: answersAhead)
        return (connection.source.urgent[0], connection.source.bulk)
    }

    private func attach(_ connection: borrowing Connection, answersAhead: Bool) throws {
        let (urgent, bulks) = (connection.destination.urgent, connection.destination.bulks)
        try destination.attach(
            urgent: urgent,
            bulk: bulks,
            answersAhead: answersAhead,
            inflating: Set(Codec.allCases)
        ) { [laneEvents] in
            laneEvents.add($0)
        }
        destination.waitUntilTurned()
    }

    /// Touches pages of a region one by one on a new thread.
    func touch(region: Int, _ pages: [Int]) throws {
        try readers.run("touch") { [arriving] in
            for page in pages { _ = arriving[region].page(page).load(as: UInt8.self) }
        }
    }

    /// Waits until all threads that touch pages have them.
    func waitForReaders() {
        readers.join()
    }

    /// Reads all pages of the destination and returns those that differ from the source's.
    func wrongPages() -> [Int] {
        var wrong: [Int] = []
        for (region, copy) in zip(regions, arriving) {
            for page in 0..<region.pageCount where memcmp(region.page(page), copy.page(page), region.pageSize) != 0 {
                wrong.append(page)
            }
        }
        return wrong
    }

    var pagesTotal: Int { regions.reduce(0) { $0 + $1.pageCount } }
    var zeroPages: Int {
        regions.reduce(0) { sum, region in
            sum + (0..<region.pageCount).count { ZeroScan.isZero(region.page($0), byteCount: region.pageSize) }
        }
    }

    /// The first reason for which a lane of the destination was lost.
    func lossAtDestination() -> (lane: Lane, reason: String)? {
        laneEvents.loss()
    }

    func waitUntilResident() -> Bool {
        destinationEvents.first { if case .everyPageResident = $0 { true } else { nil } } ?? false
    }

    /// Stops the agents and threads, also after a failure: a thread that still waits for a page then reads zeros.
    func end() {
        destination.stop()
        for region in arriving { try? destination.memory.userfaultfd.unregister(region.range) }
        readers.join()
    }
}

extension EventLog where Event == PageFetcher.LaneEvent {
    /// The first reason for which a lane was lost.
    func loss() -> (lane: Lane, reason: String)? {
        first {
            guard case .lost(let lane, let reason) = $0 else { return nil }
            return (lane, reason)
        }
    }
}

extension PageFetcher {
    /// Attaches lanes whose events the test does not need.
    func attach(urgent: [SharedSocket], bulk: SharedSocket) throws(SystemError) {
        try attach(urgent: urgent, bulk: [bulk]) { _ in }
    }

    /// Attaches lanes of which one is a bulk lane.
    func attach(
        urgent: [SharedSocket],
        bulk: SharedSocket,
        answersAhead: Bool = false,
        telling tell: @escaping @Sendable (LaneEvent) -> Void
    ) throws(SystemError) {
        try attach(urgent: urgent, bulk: [bulk], answersAhead: answersAhead, telling: tell)
    }
}

extension PageServer {
    /// Attaches lanes of which one is a bulk lane.
    func attach(urgent: [SharedSocket], bulk: SharedSocket) throws(SystemError) {
        try attach(urgent: urgent, bulk: [bulk])
    }
}

extension EventLog where Event == PageServer.Event {
    /// The first reason for which a lane was lost.
    func loss() -> (lane: Lane, reason: String)? {
        first {
            guard case .laneLost(let lane, let reason) = $0 else { return nil }
            return (lane, reason)
        }
    }

    /// The first reason for which pages could not be sent.
    func memoryLoss() -> String? {
        first {
            guard case .memoryLost(let reason) = $0 else { return nil }
            return reason
        }
    }

    func waitUntilSent() -> Bool {
        first { if case .everyPageSent = $0 { true } else { nil } } ?? false
    }
}

extension StreamSocket {
    /// Sends a lane frame and the bytes that follow it.
    func send(_ frame: LaneFrame, body: [UInt8] = []) throws {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { frame.encode(into: base) } }
        try send(bytes + body)
    }

    /// Receives a lane frame without the bytes that follow it; nil if the peer has closed.
    func receiveFrame() throws -> LaneFrame? {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        let count = try bytes.withUnsafeMutableBytes { try receive(exactly: $0) }
        guard count == bytes.count else { return nil }
        return try LaneFrame.decode(bytes.span.bytes)
    }
}
