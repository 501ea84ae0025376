import Glibc
import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import Synchronization
import SystemPackage
import Testing

@testable import PageFetcher
@testable import PageServer

/// Memory of another process as the memory of a source.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct ForeignMemoryTests {
    /// How a source reaches memory of another process.
    enum Reach: Sendable, CaseIterable {
        case process, file

        /// Makes memory with the content of a region; the process names it `m1` or `f1`.
        func copy(of region: MemoryRegion, in other: OtherProcess) throws -> SourceRegion {
            switch self {
            case .process: try other.copy(of: region)
            case .file: try other.file(with: region)
            }
        }

        /// Statements of the process that take the first piece of memory away, from a page on.
        func loss(from page: Int, of pageCount: Int) -> String {
            switch self {
            case .process: "unmap(m1, \(page * 4096), \((pageCount - page) * 4096))"
            case .file: "os.truncate(f1, \(page * 4096))"
            }
        }

        /// A part of the reason for which lost memory cannot be read.
        var reason: String {
            switch self {
            case .process: "Bad address; the process has taken it away"
            case .file: "No data available; the file was shrunk"
            }
        }
    }

    // MARK: Whole transfers

    @Test(arguments: Reach.allCases)
    func `the push alone delivers every page byte for byte, and sends no zero page`(reach: Reach) throws {
        let ferry = try Ferry(pageCounts: [1000, 7])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, _) = try ferry.serve(ferry.regions.map { try reach.copy(of: $0, in: other) })
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        #expect(ferry.destination.progress.zero == ferry.zeroPages)
        #expect(source.progress.zeroPages == ferry.zeroPages)
        #expect(source.progress.bytesSent == (ferry.pagesTotal - ferry.zeroPages) * 4096)
    }

    @Test func `memory of only zeros is pushed without bytes`() throws {
        let ferry = try Ferry(pageCounts: [2000], zeroEvery: 1)
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, _) = try ferry.serve([other.copy(of: ferry.regions[0])])
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.destination.progress.zero == 2000)
        #expect(source.progress.bytesSent == 0)
    }

    @Test(arguments: [Prefetch.none, .streams(window: 1024)])
    func `faults and the push together deliver private memory, a memory file and own memory`(
        prefetch: Prefetch
    ) throws {
        let ferry = try Ferry(pageCounts: [3000, 2000, 500], prefetch: prefetch)
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, events) = try ferry.serve([
            other.copy(of: ferry.regions[0]), other.file(with: ferry.regions[1], at: 5 * 4096),
            .mapped(ferry.regions[2]),
        ])
        defer { source.detach() }
        for region in 0..<3 {
            let count = ferry.regions[region].pageCount
            try ferry.touch(region: region, Array(0..<count))
            try ferry.touch(region: region, (0..<count).shuffled())
        }
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
    }

    @Test func `a round of requests for more pages than a window holds is answered in order`() throws {
        let pages = try MemoryRegion(name: "pages", pageCount: 300)
        for page in 0..<300 where page % 7 != 3 { pages.page(page).storeBytes(of: UInt64(page) + 1, as: UInt64.self) }
        let other = try OtherProcess()
        let served = try Served([other.copy(of: pages)], pageCount: 300)
        defer { served.source.detach() }
        // One send, so that one round answers all requests.
        let runs = stride(from: 297, through: 0, by: -3).map { PageRun(region: 0, count: 3, first: UInt64($0)) }
        try served.urgent.stream.send(runs.flatMap { Served.bytes(.pageRequest($0)) })
        for run in runs {
            for page in run.first..<run.first + 3 { #expect(try served.next(page) == (page % 7 == 3 ? 0 : page + 1)) }
        }
        // A run that is longer than a window.
        let longest = PageRun(region: 0, count: PageRun.maxCount(pageSize: 4096), first: 0)
        try served.urgent.stream.send(.pageRequest(longest))
        for page in 0..<UInt64(longest.count) { #expect(try served.next(page) == (page % 7 == 3 ? 0 : page + 1)) }
    }

    @Test(arguments: Reach.allCases)
    func `huge pages are delivered by faults and by the push`(reach: Reach) throws {
        try HugePages.with(free: 30) {
            let ferry = try Ferry(pageCounts: [7, 3], pageSize: HugePagePool.pageSize)
            defer { ferry.end() }
            let other = try OtherProcess()
            defer { other.kill() }
            let (source, events) = try ferry.serve(ferry.regions.map { try reach.copy(of: $0, in: other) })
            defer { source.detach() }
            try ferry.touch(region: 0, [5, 4, 1])
            ferry.waitForReaders()
            try source.startPush()
            #expect(ferry.waitUntilResident())
            #expect(events.waitUntilSent())
            #expect(ferry.wrongPages() == [])
            #expect(source.progress.bytesSent == (10 - ferry.zeroPages) * HugePagePool.pageSize)
        }
    }

    @Test func `huge and small pages of one round pass through one window`() throws {
        try HugePages.with(free: 4) {
            let small = try numbered(100)
            let huge = try MemoryRegion(name: "huge", pageSize: HugePagePool.pageSize, pageCount: 2)
            for page in 0..<2 { huge.page(page).storeBytes(of: UInt64(page) + 500, as: UInt64.self) }
            let other = try OtherProcess()
            defer { other.kill() }
            let served = try Served([other.copy(of: small), other.copy(of: huge)], pageCount: 100, hugePageCount: 2)
            defer { served.source.detach() }
            let runs = [
                PageRun(region: 0, count: 60, first: 0), PageRun(region: 1, count: 1, first: 0),
                PageRun(region: 1, count: 1, first: 1), PageRun(region: 0, count: 40, first: 60),
            ]
            try served.urgent.stream.send(runs.flatMap { Served.bytes(.pageRequest($0)) })
            for page in 0..<UInt64(60) { #expect(try served.next(page) == page + 1) }
            for page in 0..<UInt64(2) { #expect(try served.next(page, region: 1) == page + 500) }
            for page in 60..<UInt64(100) { #expect(try served.next(page) == page + 1) }
        }
    }

    @Test func `pages that were in flight when a lane broke are read again`() throws {
        let ferry = try Ferry(pageCounts: [2000])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, _) = try ferry.makeSource(of: [other.copy(of: ferry.regions[0])])
        defer { source.detach() }
        source.freeze()
        // Whatever this connection takes is lost.
        let lost = try Connection()
        try source.attach(urgent: lost.source.urgent, bulk: lost.source.bulk)
        try source.startPush()
        while source.progress.pagesSent < 100 { MonotonicClock.sleep(nanoseconds: 100_000) }
        #expect(source.resend(allBut: [[UInt8](repeating: 0, count: 250)]) == 0)
        try ferry.connect(source)
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
    }

    // MARK: Lost memory

    @Test(arguments: Reach.allCases)
    func `the push ends at memory that was taken away, and says how much has not arrived`(reach: Reach) throws {
        let pages = try numbered(300)
        let other = try OtherProcess()
        let served = try Served([reach.copy(of: pages, in: other)], pageCount: 300)
        defer { served.source.detach() }
        try other.run(reach.loss(from: 101, of: 300))
        try served.source.startPush()
        for page in 0..<UInt64(101) { #expect(try served.next(page, on: served.bulk) == page + 1) }
        #expect(try served.bulk.stream.receiveFrame() == nil)
        let reason = try #require(served.events.memoryLoss())
        #expect(reason.hasPrefix("page 101 of region 0 cannot be sent: cannot read "), "\(reason)")
        #expect(
            reason.hasSuffix("\(reach.reason); at least 199 of 300 pages have not arrived at the destination"),
            "\(reason)"
        )
    }

    /// Pages that begin with their number plus 1.
    private func numbered(_ pageCount: Int) throws -> MemoryRegion {
        let pages = try MemoryRegion(name: "pages", pageCount: pageCount)
        for page in 0..<pageCount { pages.page(page).storeBytes(of: UInt64(page) + 1, as: UInt64.self) }
        return pages
    }

    @Test(arguments: Reach.allCases)
    func `a request for memory that was taken away is answered up to the loss`(reach: Reach) throws {
        let pages = try numbered(300)
        let other = try OtherProcess()
        let served = try Served([reach.copy(of: pages, in: other)], pageCount: 300)
        defer { served.source.detach() }
        try other.run(reach.loss(from: 101, of: 300))
        try served.urgent.stream.send(
            Served.bytes(.pageRequest(PageRun(region: 0, count: 2, first: 7)))
                + Served.bytes(.pageRequest(PageRun(region: 0, count: 10, first: 99)))
        )
        for page: UInt64 in [7, 8, 99, 100] { #expect(try served.next(page) == page + 1) }
        #expect(try served.urgent.stream.receiveFrame() == nil)
        let reason = try #require(served.events.memoryLoss())
        #expect(reason.hasPrefix("page 101 of region 0 cannot be sent: cannot read "), "\(reason)")
    }

    @Test func `a page in the middle of private memory is missed when it was unmapped, and only then`() throws {
        let ferry = try Ferry(pageCounts: [300])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, events) = try ferry.serve([other.copy(of: ferry.regions[0])])
        defer { source.detach() }
        try other.run("unmap(m1, \(150 * 4096), 4096)")
        try ferry.touch(region: 0, [149, 151])
        ferry.waitForReaders()
        #expect(events.all.isEmpty)
        try ferry.touch(region: 0, [150])
        #expect(try #require(events.memoryLoss()).hasPrefix("page 150 of region 0 cannot be sent: "))
        #expect(ferry.lossAtDestination() != nil)
        #expect(!ferry.destination.memory.resident[0].contains(150))
        #expect(ferry.destination.memory.resident[0].count == 2)
    }

    @Test func `a memory file that ends within a page has lost that page`() throws {
        let other = try OtherProcess()
        let served = try Served([other.file(with: numbered(300))], pageCount: 300)
        defer { served.source.detach() }
        try other.run("os.truncate(f1, 101 * 4096 + 100)")
        try served.source.startPush()
        for page in 0..<UInt64(101) { #expect(try served.next(page, on: served.bulk) == page + 1) }
        #expect(try served.bulk.stream.receiveFrame() == nil)
        #expect(try #require(served.events.memoryLoss()).hasPrefix("page 101 of region 0 cannot be sent: "))
    }

    @Test(arguments: Reach.allCases)
    func `memory that is lost in the middle of a push ends the push, and every page that came is right`(
        reach: Reach
    ) throws {
        let ferry = try Ferry(pageCounts: [4000])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, events) = try ferry.serve([reach.copy(of: ferry.regions[0], in: other)])
        defer { source.detach() }
        source.limitPush(bytesPerSecond: 10 << 20)
        try source.startPush()
        while ferry.destination.progress.pagesResident == 0 { MonotonicClock.sleep(nanoseconds: 100_000) }
        switch reach {
        case .process: other.kill()
        case .file: try other.run(reach.loss(from: 0, of: 4000))
        }
        source.limitPush(bytesPerSecond: 0)
        let reason = try #require(events.memoryLoss())
        #expect(reason.contains(reach == .process ? "No such process; at least " : reach.reason), "\(reason)")
        #expect(ferry.lossAtDestination() != nil)
        ferry.destination.detach()
        let resident = ferry.destination.memory.resident[0]
        #expect(resident.count < 4000)
        #expect(resident.firstClear(from: 0) == resident.count)
        for page in 0..<resident.count {
            #expect(memcmp(ferry.regions[0].page(page), ferry.arriving[0].page(page), 4096) == 0, "page \(page)")
        }
    }

    @Test func `a process that is killed between two requests is missed at the second`() throws {
        let ferry = try Ferry(pageCounts: [300])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, events) = try ferry.serve([other.copy(of: ferry.regions[0])])
        defer { source.detach() }
        try ferry.touch(region: 0, [5])
        ferry.waitForReaders()
        other.kill()
        #expect(events.all.isEmpty)
        try ferry.touch(region: 0, [9])
        let reason = try #require(events.memoryLoss())
        #expect(reason.contains("No such process; at least 299 of 300 pages have not arrived"), "\(reason)")
        #expect(ferry.lossAtDestination() != nil)
        #expect(ferry.destination.memory.resident[0].count == 1)
    }

    @Test(arguments: Reach.allCases)
    func `a page that was sent before its memory was lost is not missed`(reach: Reach) throws {
        let ferry = try Ferry(pageCounts: [300])
        defer { ferry.end() }
        let other = try OtherProcess()
        let served = try Served([reach.copy(of: ferry.regions[0], in: other)], pageCount: 300)
        defer { served.source.detach() }
        try served.source.startPush()
        #expect(served.events.waitUntilSent())
        try other.run(reach.loss(from: 0, of: 300))
        try served.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 3, first: 5)))
        try served.urgent.stream.send(.probe)
        #expect(try served.urgent.stream.receiveFrame()?.kind == .probeReply)
        #expect(served.events.memoryLosses == 0)
    }

    @Test func `the push reads no page that was sent before`() throws {
        let ferry = try Ferry(pageCounts: [300])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (source, events) = try ferry.serve([other.copy(of: ferry.regions[0])])
        defer { source.detach() }
        try ferry.touch(region: 0, [50, 51, 52])
        ferry.waitForReaders()
        try other.run("unmap(m1, \(50 * 4096), \(3 * 4096))")
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        #expect(events.memoryLosses == 0)
    }

    // MARK: Calls and memory

    #if DEBUG
    @Test func `a run of pages is read by one call`() throws {
        let ferry = try Ferry(pageCounts: [256])
        defer { ferry.end() }
        let other = try OtherProcess()
        let (memory, window) = try shown(other.copy(of: ferry.regions[0]), of: ferry)
        #expect(window == 64)
        let lanes = try Connection()
        let reads = Atomic<Int>(0)
        let reading = try JoinedThread(name: "read") {
            while let frame = try? lanes.destination.bulk.stream.receiveFrame() {
                var body = [UInt8](repeating: 0, count: Int(frame.bodyByteCount))
                _ = try? body.withUnsafeMutableBytes { try lanes.destination.bulk.stream.receive(exactly: $0) }
            }
        }
        ForcedErrno.asking({ call in
            if call == .processVMReadv { reads.add(1, ordering: .relaxed) }
            return nil
        }) {
            var push = BulkPush(
                lane: 0,
                cursor: PushCursor(memory: memory, lanes: 1),
                memory: memory,
                sockets: DestinationLanes(urgent: lanes.source.urgent, bulk: [lanes.source.bulk])
            ) { _ in }
            push.run()
        }
        lanes.source.bulk.stream.shutdown()
        reading.join()
        #expect(memory.pagesSent == 256)
        #expect(reads.load(ordering: .relaxed) == 4)
    }

    @Test func `memory that may not be read is named with what permits it`() throws {
        let ferry = try Ferry(pageCounts: [10])
        defer { ferry.end() }
        let other = try OtherProcess()
        let copy = try other.copy(of: ferry.regions[0])
        let error = try #require(throws: MemoryLost.self) {
            try ForcedErrno.with([.processVMReadv: [.notPermitted]]) { _ = try shown(copy, of: ferry) }
        }
        #expect(error.reason.contains("Operation not permitted; run the agent as root; or as the user of process "))
    }

    /// Shows the first pages of memory.
    ///
    /// - Returns: the memory, and the number of pages that were shown.
    private func shown(_ region: SourceRegion, of ferry: Ferry) throws -> (SentMemory, Int) {
        let memory = try SentMemory(regions: [region], table: ferry.table, release: nil)
        memory.isFrozen.store(true, ordering: .releasing)
        var window = memory.makePushWindow()
        let shown = try memory.showUnsent(
            from: PagePlace(region: 0, page: 0),
            upTo: region.pageCount,
            in: &window
        )
        return (memory, shown?.pages.count ?? 0)
    }
    #endif

    @Test func `a gibibyte is pushed in little memory of the source`() async {
        // Run in a process of its own, where no other test uses memory.
        await #expect(processExitsWith: .success) {
            let pageCount = 1 << 18
            let other = try OtherProcess()
            let address = try other.run(
                "m = private(1 << 30); [m.write(os.urandom(1 << 20)) for _ in range(1024)]; r = address(m)"
            )
            let served = try Served([other.memory(at: address, pageCount: pageCount)], pageCount: pageCount)
            let more = try Self.peakGrowthKiB {
                try served.source.startPush()
                try served.drain(served.bulk)
                guard served.events.waitUntilSent() else { throw Missing(what: "pages") }
            }
            guard more < 32 << 10 + pageCount >> 10 else { throw Missing(what: "memory: \(more) KiB more were used") }
            served.source.detach()
        }
    }

    @Test func `sixteen lanes send huge pages of private memory in little memory of the source`() async {
        // Run in a process of its own, where no other test uses memory.
        await #expect(processExitsWith: .success) {
            let (small, huge) = (1024, 64)
            let other = try OtherProcess()
            // The source knows the page size of a region, and not how its process has mapped the region.
            let smallAddress = try other.run(
                "m = private(4 << 20); c.memset(\(Self.pointer("m")), 7, 4 << 20); r = address(m)"
            )
            let hugeAddress = try other.run(
                "n = private(128 << 20); c.memset(\(Self.pointer("n")), 7, 128 << 20); r = address(n)"
            )
            let served = try Served(
                [
                    other.memory(at: smallAddress, pageCount: small),
                    other.memory(at: hugeAddress, pageSize: HugePagePool.pageSize, pageCount: huge),
                ],
                pageCount: small,
                hugePageCount: huge,
                urgentLanes: Wire.maxUrgentLanes
            )
            let more = try Self.peakGrowthKiB {
                let readers = ThreadGroup()
                for (index, lane) in served.urgentLanes.enumerated() {
                    try readers.run("read") {
                        // A failure shows in the number of requests that were answered.
                        try? lane.stream.send(.pageRequest(PageRun(region: 0, count: 64, first: UInt64(64 * index))))
                        for page in 2 * index..<2 * index + 2 {
                            try? lane.stream.send(.pageRequest(PageRun(region: 1, count: 1, first: UInt64(page))))
                        }
                        try? Served.drain(lane, pages: 66)
                    }
                }
                readers.join()
                try served.source.startPush()
                try Served.drain(served.bulk, pages: huge - 2 * Wire.maxUrgentLanes)
                guard served.events.waitUntilSent() else { throw Missing(what: "pages") }
            }
            guard served.source.progress.requests == 3 * Wire.maxUrgentLanes else { throw Missing(what: "answers") }
            guard more < 24 << 10 else { throw Missing(what: "memory: \(more) KiB more were used") }
            served.source.detach()
        }
    }

    /// The address of a mapping for a C function that is called from Python.
    private static func pointer(_ name: String) -> String { "ctypes.c_void_p(address(\(name)))" }

    /// How far the peak of this process's resident memory rises above the resident memory before, during `body`.
    private static func peakGrowthKiB(_ body: () throws -> Void) throws -> Int {
        let before = try residentKiB("VmRSS")
        // The peak starts anew.
        let file = open("/proc/self/clear_refs", O_WRONLY)
        guard write(file, "5", 1) == 1 else { throw Missing(what: "a new peak") }
        close(file)
        try body()
        return try residentKiB("VmHWM") - before
    }

    private static func residentKiB(_ name: String) throws -> Int {
        let line = ProcessFile.text("/proc/self/status")?.split(separator: "\n").first { $0.hasPrefix(name) }
        guard let line, let number = Int(line.filter(\.isNumber)) else { throw Missing(what: name) }
        return number
    }

    // MARK: Release

    @Test func `a process is asked to drop what was sent, and late requests for that are not answered`() throws {
        let pages = try numbered(300)
        let other = try OtherProcess()
        let freed = try EventLog<Range<Int>>()
        let served = try Served([other.copy(of: pages) { freed.add($0) }], pageCount: 300, releasesMemory: true)
        defer { served.source.detach() }
        served.source.releaseSentMemory()
        try served.source.startPush()
        try served.drain(served.bulk)
        #expect(served.events.waitUntilSent())
        _ = freed.first { $0 == 0..<300 ? true : nil }
        #expect(Set(freed.all.flatMap(\.self)) == Set(0..<300))
        try served.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 3, first: 5)))
        try served.urgent.stream.send(.probe)
        #expect(try served.urgent.stream.receiveFrame()?.kind == .probeReply)
    }

    @Test func `a memory file loses what was sent, for its process too`() throws {
        let pages = try numbered(300)
        let other = try OtherProcess()
        let file = try other.file(with: pages, at: 4096)
        let served = try Served([file], pageCount: 300, releasesMemory: true)
        try other.run("m1[0] = 7")
        #expect(try other.run("r = os.stat(f1).st_blocks") == "\(301 * 8)")
        served.source.releaseSentMemory()
        try served.source.startPush()
        try served.drain(served.bulk)
        #expect(served.events.waitUntilSent())
        served.source.detach()
        #expect(try other.run("r = os.stat(f1).st_blocks, m1[0], m1[4096]") == "(8, 7, 0)")
    }

    @Test func `memory that is not needed any more is given back whole`() throws {
        let pages = try MemoryRegion(name: "pages", pageCount: 300)
        pages.base.initializeMemory(as: UInt8.self, repeating: 5, count: pages.byteCount)
        let other = try OtherProcess()
        let freed = try EventLog<Range<Int>>()
        let copies = [try other.copy(of: pages) { freed.add($0) }, try other.file(with: pages)]
        let table = try Served.table(pageCounts: [300, 300])
        let source = try PageServer(regions: copies, table: table) { _ in }
        try source.discardMemory()
        #expect(freed.all == [0..<300])
        #expect(try other.run("r = os.stat(f2).st_blocks") == "0")
    }
}
