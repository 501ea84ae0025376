import Glibc
import LinuxSystem
import PageProtocol
import SourceAgent

@testable import DestinationAgent

/// Memory with content on one side, memory that waits for it on the other, and the two agents.
final class Ferry: Sendable {
    static let pageSize = 4096
    let regions: [MemoryRegion]
    let arriving: [MemoryRegion]
    let table: RegionTable
    private let faultThreads: Int
    let destination: DestinationAgent
    let destinationEvents: EventLog<DestinationAgent.Event>
    private let readers = ThreadGroup()

    /// Makes regions of these many pages. Every page of an index that `zeroEvery` divides holds zeros.
    init(
        pageCounts: [Int],
        pageSize: Int = Ferry.pageSize,
        zeroEvery: Int = 4,
        prefetch: Prefetch = .none,
        inThread: Bool = false,
        faultThreads: Int = 1,
        dropsMemory: Bool = false,
        readsRemovals: Bool = true,
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
        let log = try EventLog<DestinationAgent.Event>()
        destinationEvents = log
        destination = try DestinationAgent(
            userfaultfd: userfaultfd,
            ranges: arriving.map(\.range),
            resident: arriving.map { try PageBitmap(pageCount: $0.pageCount) },
            table: table,
            prefetch: prefetch,
            faultThreads: faultThreads,
            resolvesInThread: inThread,
            removals: dropsMemory && readsRemovals
                ? Removals(in: SharedMemory(anonymousBytes: (Removals.byteCount + 4095) & ~4095), at: 0) : nil
        ) { log.add($0) }
        if starts { try destination.start() }
    }

    /// Another source of the same memory, which has sent nothing yet.
    func makeSource(releasesMemory: Bool = false) throws -> (SourceAgent, EventLog<SourceAgent.Event>) {
        let log = try EventLog<SourceAgent.Event>()
        return (try SourceAgent(regions: regions, table: table, releasesMemory: releasesMemory) { log.add($0) }, log)
    }

    /// Another source of the same memory, whose workload has stopped, joined to the destination.
    func serve(releasesMemory: Bool = false) throws -> (SourceAgent, EventLog<SourceAgent.Event>) {
        let (source, events) = try makeSource(releasesMemory: releasesMemory)
        try connect(source)
        source.freeze()
        return (source, events)
    }

    /// Joins a source to the destination.
    func connect(_ source: SourceAgent) throws {
        let connection = try Connection(urgentLanes: faultThreads)
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        try destination.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulk)
        destination.waitUntilTurned()
    }

    /// Gives the destination a source that the test plays itself: its ends of the first urgent lane and of the bulk lane.
    func connectToTest() throws -> (urgent: SharedSocket, bulk: SharedSocket) {
        let connection = try Connection(urgentLanes: faultThreads)
        try destination.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulk)
        destination.waitUntilTurned()
        return (connection.source.urgent[0], connection.source.bulk)
    }

    /// Touches pages of a region one by one on a thread of its own.
    func touch(region: Int, _ pages: [Int]) throws {
        try readers.run("touch") { [arriving] in
            for page in pages { _ = arriving[region].page(page).load(as: UInt8.self) }
        }
    }

    /// Waits until everybody who touches pages has got them.
    func waitForReaders() {
        readers.join()
    }

    /// Pages of the destination, all of them, that differ from the source's.
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
        destinationEvents.first {
            guard case .laneLost(let lane, let reason) = $0 else { return nil }
            return (lane, reason)
        }
    }

    func waitUntilResident() -> Bool {
        destinationEvents.first { if case .everyPageResident = $0 { true } else { nil } } ?? false
    }

    /// Ends all, also when a test has failed: who still waits for a page then reads zeros.
    func end() {
        destination.stop()
        for region in arriving { try? destination.memory.userfaultfd.unregister(region.range) }
        readers.join()
    }
}

extension EventLog where Event == SourceAgent.Event {
    /// The first reason for which a lane was lost.
    func loss() -> (lane: Lane, reason: String)? {
        first {
            guard case .laneLost(let lane, let reason) = $0 else { return nil }
            return (lane, reason)
        }
    }

    func waitUntilSent() -> Bool {
        first { if case .everyPageSent = $0 { true } else { nil } } ?? false
    }
}

extension StreamSocket {
    /// Sends a lane frame and what follows it.
    func send(_ frame: LaneFrame, body: [UInt8] = []) throws {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { frame.encode(into: base) } }
        try send(bytes + body)
    }

    /// Receives a lane frame without what follows it; nil when the peer has closed.
    func receiveFrame() throws -> LaneFrame? {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        let count = try bytes.withUnsafeMutableBytes { try receive(exactly: $0) }
        guard count == bytes.count else { return nil }
        return try LaneFrame.decode(bytes.span.bytes)
    }
}
