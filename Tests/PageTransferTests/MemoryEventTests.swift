import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Synchronization
import Testing

@testable import LinuxSystem
@testable import PageFetcher

/// What a process does to its memory while pages are missing, and reports by events.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct MemoryEventTests {
    /// The bytes of pages in the process, one of each page.
    private static func bytes(_ pages: Range<Int>) -> String {
        "r = [m[4096 * i + 7] for i in range(\(pages.lowerBound), \(pages.upperBound))]"
    }

    @Test func `private pages that are dropped or unmapped before they arrive are never placed`() throws {
        let scene = try ReportingProcess(isFile: false)
        defer { scene.end() }
        try scene.process.run("m.madvise(mmap.MADV_DONTNEED, 2 * 4096, 3 * 4096); unmap(m, 10 * 4096, 2 * 4096)")
        scene.waitUntilRemoved(5)
        try scene.push()
        #expect(scene.waitUntilResident())
        #expect(try scene.process.run(Self.bytes(0..<10)) == "[1, 2, 0, 0, 0, 6, 7, 8, 9, 10]")
        #expect(try scene.process.run(Self.bytes(12..<14)) == "[13, 14]")
        #expect(scene.loss == nil)
    }

    @Test func `pages of a memory file that are dropped after they arrived read as the kernel says`() throws {
        let scene = try ReportingProcess(isFile: true)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.place(0..<8, on: lanes.bulk)
        try scene.process.run("m.madvise(mmap.MADV_DONTNEED, 4096, 4096); m.madvise(mmap.MADV_REMOVE, 8192, 4096)")
        #expect(try scene.process.run(Self.bytes(0..<4)) == "[1, 2, 0, 4]")
        #expect(scene.loss == nil)
        try scene.place(8..<64, on: lanes.bulk)
        #expect(scene.waitUntilResident())
        #expect(try scene.process.run(Self.bytes(0..<10)) == "[1, 2, 0, 4, 5, 6, 7, 8, 9, 10]")
    }

    @Test(arguments: ["MADV_DONTNEED", "MADV_REMOVE"])
    func `a page of a memory file that is dropped before it arrives is lost, and its reader waits`(
        advice: String
    ) throws {
        let scene = try ReportingProcess(isFile: true)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.place(0..<8, on: lanes.bulk)
        try scene.process.run("m.madvise(mmap.\(advice), 6 * 4096, 3 * 4096)")
        let reason =
            "memory of the workload is lost: the process has dropped 1 page of region 0, a memory file, before the "
            + "content had arrived (madvise)"
        #expect(scene.firstLoss() == reason)
        // The push brings the page, and other pages.
        try scene.send(8..<12, on: lanes.bulk)
        #expect(scene.placementFailure() == reason)
        #expect(scene.fetcher.progress.pagesResident == 8)
        try scene.read("m[8 * 4096]")
        #expect(OtherProcess.waitForFault(of: scene.number))
    }

    @Test func `memory of a file that is unmapped before its pages arrive is not waited for`() throws {
        let scene = try ReportingProcess(isFile: true)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.process.run("unmap(m, 8 * 4096, 56 * 4096)")
        scene.waitUntilRemoved(56)
        try scene.send(0..<64, on: lanes.bulk)
        #expect(scene.waitUntilResident())
        #expect(try scene.process.run(Self.bytes(0..<8)) == "[1, 2, 3, 4, 5, 6, 7, 8]")
    }

    @Test(arguments: [false, true])
    func `memory that is moved before its pages arrive is lost, and a reader at its new place waits`(
        isFile: Bool
    ) throws {
        let scene = try ReportingProcess(isFile: isFile)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.place(0..<8, on: lanes.bulk)
        // The new place is where a page has been that has arrived.
        try scene.process.run("unmap(m, 0, 4 * 4096)")
        #expect(scene.loss == nil)
        try scene.process.run(
            "new = address(m); c.mremap(size(new + 8 * 4096), size(4 * 4096), size(4 * 4096), 3, size(new))"
        )
        let loss = try #require(scene.firstLoss())
        #expect(
            loss.hasPrefix("memory of the workload is lost: the process has moved memory of region 0 from address ")
        )
        #expect(loss.hasSuffix(" before all memory had arrived (mremap)"))
        // The kernel reports the old addresses as unmapped, and yet the memory is not complete.
        #expect(scene.fetcher.progress.pagesResident == 8)
        try scene.send(8..<64, on: lanes.bulk)
        #expect(scene.placementFailure() == loss)
        // Further events are read, so that the process does not wait for that.
        try scene.process.run("unmap(m, 20 * 4096, 4096)")
        #expect(!scene.fetcher.isComplete)
        try scene.read("ctypes.string_at(new + 4096, 1)")
        #expect(OtherProcess.waitForFault(of: scene.number))
    }

    @Test(arguments: [false, true])
    func `a child waits for its missing pages for ever, and is let go when it ends`(isFile: Bool) throws {
        let scene = try ReportingProcess(isFile: isFile)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.place(0..<8, on: lanes.bulk)
        let child = try scene.process.run("r = os.fork(); r or os._exit(m[9 * 4096])")
        #expect(OtherProcess.waitForFault(of: child))
        #expect(scene.events.first { if case .forked = $0 { true } else { nil } } == true)
        // A child that unmaps memory and has a child of its own is not held up.
        let second = try scene.process.run(
            "r = os.fork(); r or (unmap(m, 0, 4096), os.fork() or os._exit(0), os._exit(7))"
        )
        #expect(try scene.process.run("r = os.waitpid(\(second), 0)[1]") == "\(7 << 8)")
        try scene.place(8..<64, on: lanes.bulk)
        #expect(scene.waitUntilResident())
        let events = try #require(scene.fetcher.memory.events)
        scene.fetcher.stop()
        #expect(try scene.process.run("os.kill(\(child), 0); r = os.waitpid(\(child), os.WNOHANG)") == "(0, 0)")
        // The child of the second child may end a little later than its parent.
        while events.childCount > 1 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        #expect(events.childCount == 1)
        try scene.process.run("os.kill(\(child), 9); os.waitpid(\(child), 0)")
        while events.childCount > 0 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        #expect(scene.events.all.count { if case .forked = $0 { true } else { false } } == 1)
    }

    @Test func `a process with too many children is not served until one of them has ended`() throws {
        let scene = try ReportingProcess(isFile: false)
        defer { scene.end() }
        let most = UnservedMemory.mostChildren
        // Each child ends with its parent (PR_SET_PDEATHSIG).
        try scene.process.run(
            "kids = [os.fork() or (c.prctl(1, 9), os.getppid() == \(scene.number) and c.pause(), os._exit(0)) "
                + "for i in range(\(most))]"
        )
        try scene.read("m[0]")
        let reason = scene.events.first { if case .failed(let reason) = $0 { reason } else { nil } }
        #expect(
            reason?.hasSuffix("has forked \(most) children that still live; end some of them") == true,
            "\(reason ?? "")"
        )
    }

    @Test(arguments: [false, true])
    func `pages arrive right while their process drops pages, unmaps and forks`(isFile: Bool) throws {
        let scene = try ReportingProcess(pageCount: 3000, isFile: isFile)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.place(0..<8, on: lanes.bulk)
        try scene.push()
        try scene.process.run(
            "for i in range(300): m.madvise(mmap.MADV_DONTNEED, 4096, 4096); i % 8 or os.waitpid(os.fork() or os._exit(0), 0)"
        )
        try scene.process.run("unmap(m, 0, 4096)")
        #expect(scene.waitUntilResident())
        #expect(try scene.process.run(Self.bytes(1..<4)) == (isFile ? "[2, 3, 4]" : "[0, 3, 4]"))
        #expect(try scene.process.run("r = all(m[4096 * i + 7] == i % 250 + 1 for i in range(8, 3000))") == "True")
        #expect(scene.loss == nil)
    }

    @Test func `a thread that maps a page reads the event for which the kernel maps none`() throws {
        let ferry = try AliasedFerry(pageCount: 6000, raising: .eventRemove)
        defer { ferry.end() }
        let source = try ferry.serve()
        defer { source.detach() }
        #expect(ferry.page(1).load(as: UInt8.self) != 0)
        try ferry.touch((2..<6000).shuffled())
        // The only thread that reads events also maps the pages that the faults wait for.
        let dropper = try JoinedThread(name: "drop") {
            for _ in 0..<5_000 where !ferry.destination.isComplete { _ = madvise(ferry.page(1), 4096, MADV_DONTNEED) }
        }
        ferry.waitForTouches()
        _ = ferry.page(0).load(as: UInt8.self)
        dropper.join()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
    }

    @Test func `a process whose migration has failed need not wait for a reader of its events`() throws {
        let scene = try ReportingProcess(isFile: false)
        defer { scene.end() }
        let lanes = try scene.connectToTest()
        try scene.place(0..<8, on: lanes.bulk)
        scene.fetcher.stop()
        let child = try scene.process.run("unmap(m, 0, 4096); r = os.fork(); r or os._exit(m[9 * 4096])")
        #expect(OtherProcess.waitForFault(of: child))
        try scene.process.run("os.kill(\(child), 9); os.waitpid(\(child), 0)")
        try scene.read("m[9 * 4096]")
        #expect(OtherProcess.waitForFault(of: scene.number))
    }

    @Test func `memory that waits for its agent is told from memory that was moved or unmapped`() throws {
        let process = try OtherProcess()
        defer { process.kill() }
        let waiting = try process.waiting(pageCount: 16, isFile: false, features: .events)
        let reading = try UnservedMemory(waiting.userfaultfd.duplicate(), ranges: [waiting.range])
        try process.run("m.madvise(mmap.MADV_DONTNEED, 0, 4096); os.waitpid(os.fork() or os._exit(0), 0)")
        while reading.childCount > 0 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        #expect(reading.change == nil)
        try process.run("unmap(m, 0, 4096)")
        #expect(reading.change == "has unmapped memory that it has handed over")
        // After the end, no event is read.
        reading.end()
        let dropper = try JoinedThread(name: "drop") {
            _ = try? process.run("m.madvise(mmap.MADV_DONTNEED, 8192, 4096)")
        }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        #expect(try waiting.userfaultfd.wait(or: EventDescriptor()) == .events)
        try waiting.userfaultfd.read(into: &events)
        #expect(events[0] == .removed(start: waiting.range.address + 8192, end: waiting.range.address + 12288))
        dropper.join()
    }
}

/// A process with memory that raises all events, the agent that serves it, and the content at the source.
private final class ReportingProcess: Sendable {
    let process: OtherProcess
    /// The process's number.
    let number: String
    let fetcher: PageFetcher
    let events: EventLog<PageFetcher.Event>
    private let content: MemoryRegion
    private let laneEvents: EventLog<PageFetcher.LaneEvent>
    private let table: RegionTable
    private let threads = ThreadGroup()
    private let sources = Mutex<[PageServer]>([])
    private let kept = Kept()

    private final class Kept: Sendable {
        let objects = Mutex<[any AnyObject & Sendable]>([])
    }

    init(pageCount: Int = 64, isFile: Bool) throws {
        content = try MemoryRegion(name: "ram", pageCount: pageCount)
        for page in 0..<pageCount { memset(content.page(page), CInt(page % 250 + 1), 4096) }
        process = try OtherProcess()
        let waiting = try process.waiting(pageCount: pageCount, isFile: isFile, features: .events)
        number = try process.run(
            "size = ctypes.c_size_t; r = os.getpid()"
        )
        let (range, alias) = (waiting.range, waiting.alias)
        table = try RegionTable([
            RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
        ])
        let log = try EventLog<PageFetcher.Event>()
        events = log
        laneEvents = try EventLog()
        fetcher = try PageFetcher(
            userfaultfd: waiting.userfaultfd.duplicate(),
            ranges: [range],
            resident: [PageBitmap(pageCount: pageCount)],
            aliases: [alias],
            table: table,
            prefetch: .none,
            events: MemoryEvents(in: SharedMemory(anonymousBytes: 4096), at: 0),
            keep: { [kept] object in kept.objects.withLock { $0.append(object) } }
        ) { log.add($0) }
        try fetcher.start()
    }

    /// Connects the test as the source.
    func connectToTest() throws -> (urgent: SharedSocket, bulk: SharedSocket) {
        let connection = try Connection()
        try attach(connection)
        return (connection.source.urgent[0], connection.source.bulk)
    }

    /// Connects a source, which sends all pages.
    func push() throws {
        let source = try PageServer(regions: [.mapped(content)], table: table) { _ in }
        sources.withLock { $0.append(source) }
        source.freeze()
        let connection = try Connection()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        try attach(connection)
        try source.startPush()
    }

    private func attach(_ connection: borrowing Connection) throws {
        let (urgent, bulk) = (connection.destination.urgent, connection.destination.bulk)
        try fetcher.attach(urgent: urgent, bulk: bulk) { [laneEvents] in laneEvents.add($0) }
        fetcher.waitUntilTurned()
    }

    func send(_ pages: Range<Int>, on lane: SharedSocket) throws {
        let run = PageRun(region: 0, count: UInt32(pages.count), first: UInt64(pages.lowerBound))
        let bytes = UnsafeRawBufferPointer(start: content.page(pages.lowerBound), count: pages.count * 4096)
        try lane.stream.send(.pages(run, pageSize: 4096), body: Array(bytes))
    }

    /// Sends pages, and waits until they were placed.
    func place(_ pages: Range<Int>, on lane: SharedSocket) throws {
        try send(pages, on: lane)
        let resident = fetcher.memory.resident[0]
        while resident.firstClear(in: pages) != nil { MonotonicClock.sleep(nanoseconds: 1_000_000) }
    }

    /// Reads something in the process, on a thread that waits for it until the test ends.
    func read(_ expression: String) throws {
        try threads.run("read") { [process] in _ = try? process.run("r = \(expression)") }
    }

    /// Waits until this many missing pages were dropped: the process goes on before its event is applied.
    func waitUntilRemoved(_ count: Int) {
        while fetcher.progress.removed < count { MonotonicClock.sleep(nanoseconds: 1_000_000) }
    }

    /// Waits until pages can never be placed any more, and returns the reason.
    func firstLoss() -> String? {
        events.first { if case .memoryLost(let reason) = $0 { reason } else { nil } }
    }

    /// Why pages can never be placed any more; nil if they can.
    var loss: String? {
        events.all.lazy.compactMap { if case .memoryLost(let reason) = $0 { reason } else { nil } }.first
    }

    /// Waits until a lane has brought a page that cannot be placed.
    func placementFailure() -> String? {
        laneEvents.first { if case .placementFailed(let reason) = $0 { reason } else { nil } }
    }

    func waitUntilResident() -> Bool {
        events.first { if case .everyPageResident = $0 { true } else { nil } } ?? false
    }

    func end() {
        process.kill()
        threads.join()
        for source in sources.withLock(\.self) { source.detach() }
        fetcher.stop()
    }
}
