import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Synchronization
import SystemPackage
import Testing

@testable import PageFetcher

/// Threads that exit, that a guest holds up, or whose requests do not fit into the socket.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HeldUpTests {
    @Test(arguments: [true, false])
    func `a page before LISTEN is refused and closes its lane`(isZero: Bool) throws {
        let ferry = try Ferry(pageCounts: [8], starts: false)
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        let run = PageRun(region: 0, count: 2, first: 1)
        if isZero {
            try peer.bulk.stream.send(.zeroes(run))
        } else {
            try peer.bulk.stream.send(.pages(run, pageSize: 4096), body: [UInt8](repeating: 1, count: 8192))
        }
        let loss = try #require(ferry.lossAtDestination())
        #expect(loss.lane == .bulk)
        #expect(loss.reason == "the peer sent a \(run) before LISTEN")
        ferry.destination.detach()
        #expect(ferry.destination.progress.pagesResident == 0)
        #expect(ferry.destination.received == [[0]])
    }

    @Test func `a fault thread that has exited is restarted with the next lanes`() throws {
        // poll(2) reports an error for a blocking userfaultfd, which ends the thread that serves it.
        let userfaultfd = try Userfaultfd(isBlocking: true)
        let region = try MemoryRegion(name: "ram", pageCount: 4)
        try userfaultfd.register(region.range)
        let log = try EventLog<PageFetcher.Event>()
        let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 4)
        let agent = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: [region.range],
            resident: [PageBitmap(pageCount: 4)],
            table: RegionTable([shape]),
            prefetch: .none
        ) { log.add($0) }
        defer {
            agent.stop()
            try? agent.memory.userfaultfd.unregister(region.range)
        }
        try agent.start()
        #expect(log.first { if case .failed(let reason) = $0 { reason } else { nil } } != nil)
        let isNonBlocking = agent.memory.userfaultfd.makeNonBlocking()
        #expect(isNonBlocking)
        let content = try MemoryRegion(name: "ram", pageCount: 4)
        content.base.storeBytes(of: 7, as: UInt8.self)
        let source = try PageServer(regions: [.mapped(content)], table: RegionTable([shape])) { _ in }
        defer { source.detach() }
        source.freeze()
        let connection = try Connection()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        try agent.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulk)
        #expect(region.base.load(as: UInt8.self) == 7)
    }

    @Test func `a lane that ends late reports to its own callback, not to that of the next lanes`() throws {
        let ferry = try Ferry(pageCounts: [8], dropsMemory: true, readsEvents: false, starts: false)
        defer { ferry.end() }
        // The event of the dropped page is not read yet: until then the kernel answers EAGAIN to each placement.
        ferry.destination.memory.open()
        let dropper = try JoinedThread(name: "drop") { _ = ferry.drop(7..<8, region: 0) }
        while ferry.destination.memory.userfaultfd.zero(4 << 30, byteCount: 4096) != .again { JoinedThread.yield() }
        let (lost, next) = (try Connection(), try Connection())
        let told = (lost: try EventLog<PageFetcher.LaneEvent>(), next: try EventLog<PageFetcher.LaneEvent>())
        try ferry.destination.attach(urgent: lost.destination.urgent, bulk: lost.destination.bulk) { told.lost.add($0) }
        try lost.source.bulk.stream.send(.zeroes(PageRun(region: 0, count: 1, first: 3)))
        try ferry.destination.attach(urgent: next.destination.urgent, bulk: next.destination.bulk) { told.next.add($0) }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        try ferry.destination.memory.userfaultfd.read(into: &events)
        #expect(told.lost.loss()?.lane == .bulk)
        #expect(told.next.all.isEmpty)
        dropper.join()
    }

    @Test func `a guest that blocks the thread that places its pages does not block detaching`() throws {
        let ferry = try Ferry(pageCounts: [8], dropsMemory: true, readsEvents: false, starts: false)
        defer { ferry.end() }
        // The event of the dropped page is not read yet: until then the kernel answers EAGAIN to each placement.
        ferry.destination.memory.open()
        let dropper = try JoinedThread(name: "drop") { _ = ferry.drop(7..<8, region: 0) }
        let peer = try ferry.connectToTest()
        // The address is not registered, so that nothing is placed; the kernel checks for unread events first.
        while ferry.destination.memory.userfaultfd.zero(4 << 30, byteCount: 4096) != .again { JoinedThread.yield() }
        try peer.bulk.stream.send(.zeroes(PageRun(region: 0, count: 1, first: 3)))
        ferry.destination.hangUp()
        ferry.destination.stop()
        #expect(ferry.destination.progress.pagesResident == 0)
        var events = Userfaultfd.EventBuffer(capacity: 1)
        try ferry.destination.memory.userfaultfd.read(into: &events)
        #expect(events.count == 1)
        dropper.join()
    }

    @Test func `the destination repeats requests of waiting readers while it reads answers`() throws {
        let ferry = try Ferry(pageCounts: [40_000], zeroEvery: 1)
        defer { ferry.end() }
        // Every second page, so that no run merges requests: more requests than the socket holds, at a source that
        // waits for room to answer.
        let (wanted, resident) = (ferry.destination.memory.faults.wanted[0], ferry.destination.memory.resident[0])
        for page in stride(from: 0, to: 40_000, by: 2) { wanted.insert(page) }
        let (ours, theirs) = try StreamSocket.pair()
        let (bulk, otherBulk) = try StreamSocket.pair()
        let answering = try JoinedThread(name: "answer") {
            let body = [UInt8](repeating: 3, count: 4096)
            while let frame = try? theirs.stream.receiveFrame() {
                guard (try? theirs.stream.send(.pages(frame.run, pageSize: 4096), body: body)) != nil else { return }
            }
        }
        try ferry.destination.attach(urgent: [ours], bulk: bulk)
        while resident.count < 20_000 { JoinedThread.yield() }
        #expect(ferry.destination.progress.pagesResident == 20_000)
        ferry.destination.detach()
        answering.join()
        withExtendedLifetime(otherBulk) {}
    }

    #if DEBUG
    @Test func `a fault that cannot be answered is reported, delays no other fault, and is retried`()
        throws
    {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "ram", pageCount: 4)
        try userfaultfd.register(region.range)
        let log = try EventLog<PageFetcher.Event>()
        let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 4)
        let memory = try ArrivingMemory(
            userfaultfd: userfaultfd,
            ranges: [region.range],
            resident: [PageBitmap(pageCount: 4)],
            table: RegionTable([shape])
        ) { log.add($0) }
        // A page that has arrived and was dropped since.
        memory.resident[0].insert(0)
        memory.open()
        let policy = SharedPolicy(NoPrefetch())
        let service = try FaultService(memory: memory, policy: policy, polling: .zero) { log.add($0) }
        let isShort = Shortage()
        service.begin()
        let thread = try JoinedThread(name: "faults") {
            ForcedErrno.asking({ $0 == .uffdioZeropage && isShort.value.load(ordering: .acquiring) ? .noMemory : nil })
            {
                service.run()
            }
        }
        let connection = try Connection()
        let link = SourceLanes(
            urgent: connection.destination.urgent,
            bulk: connection.destination.bulks,
            answersAhead: true
        ) { _ in }
        service.use(link.urgentLane(0))
        let dropped = try JoinedThread(name: "dropped") { _ = region.page(0).load(as: UInt8.self) }
        let reason = log.first { if case .faultUnanswered(let reason) = $0 { reason } else { nil } }
        #expect(reason == "a fault on page 0 of region 0 waits: no memory is left on this host to place a page in")
        let missing = try JoinedThread(name: "missing") { _ = region.page(2).load(as: UInt8.self) }
        let frame = try #require(try connection.source.urgent[0].stream.receiveFrame())
        #expect(frame.run.first == 2)
        let body = [UInt8](repeating: 5, count: 4096)
        try connection.source.urgent[0].stream.send(.pages(frame.run, pageSize: 4096), body: body)
        missing.join()
        #expect(region.page(2).load(as: UInt8.self) == 5)
        isShort.value.store(false, ordering: .releasing)
        dropped.join()
        #expect(!log.all.contains { if case .failed = $0 { true } else { false } })
        service.stop()
        thread.join()
    }

    private final class Shortage: Sendable {
        let value = Atomic<Bool>(true)
    }
    #endif
}
