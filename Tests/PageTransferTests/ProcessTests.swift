import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct ProcessTests {
    @Test func `a fault moves one page between two processes`() async throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        guard case .tcp(_, let port) = listener.address else { throw Missing(what: "a port") }
        let shared = Shared(listener)
        let outcome = Outcome()
        let destination = try JoinedThread(name: "destination") { outcome.set { try Self.touchOnePage(shared) } }
        await #expect(processExitsWith: .success) { [port = port as UInt16] in
            try Self.serveOnePage(port: port)
        }
        // If the other process never connects, this ends the wait for it.
        shared.listener.shutdown()
        destination.join()
        #expect(outcome.value == 0x5a)
    }

    /// The other process: a source that answers until its destination disconnects.
    static func serveOnePage(port: UInt16) throws {
        let region = try MemoryRegion(name: "page", pageCount: 1)
        region.base.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 4096)
        let shape = RegionShape(name: "page", guestAddress: 0, pageSize: 4096, pageCount: 1)
        let log = try EventLog<PageServer.Event>()
        let source = try PageServer(regions: [.mapped(region)], table: RegionTable([shape])) { log.add($0) }
        let address = SocketAddress.tcp(host: "127.0.0.1", port: port)
        let urgent = SharedSocket(try StreamSocket(connectingTo: address))
        let bulk = SharedSocket(try StreamSocket(connectingTo: address))
        source.freeze()
        try source.attach(urgent: [urgent], bulk: bulk)
        guard log.waitUntilSent(), log.loss() != nil else { throw Missing(what: "the destination's end") }
        source.detach()
    }

    /// This process: touches the page and returns what it reads.
    private static func touchOnePage(_ shared: Shared) throws -> UInt8 {
        let userfaultfd = try Userfaultfd()
        let region = try MemoryRegion(name: "page", pageCount: 1)
        try userfaultfd.register(region.range)
        let shape = RegionShape(name: "page", guestAddress: 0, pageSize: 4096, pageCount: 1)
        let destination = try PageFetcher(
            userfaultfd: userfaultfd,
            ranges: [region.range],
            resident: [PageBitmap(pageCount: 1)],
            table: RegionTable([shape])
        ) { _ in }
        try destination.start()
        defer { destination.stop() }
        let urgent = try Connection.accept(from: shared.listener)
        let bulk = try Connection.accept(from: shared.listener)
        try destination.attach(urgent: [urgent], bulk: bulk)
        return region.page(0).load(fromByteOffset: 4095, as: UInt8.self)
    }

    private final class Shared: Sendable {
        let listener: Listener
        init(_ listener: consuming Listener) { self.listener = listener }
    }

    private final class Outcome: Sendable {
        private let log = try? EventLog<UInt8>()
        var value: UInt8? { log?.all.first }
        func set(_ body: () throws -> UInt8) {
            guard let value = try? body() else { return }
            log?.add(value)
        }
    }

    @Test func `a migration leaves no descriptor and no thread behind`() async {
        // Run in a process of its own, where no other test opens a descriptor.
        await #expect(processExitsWith: .success) {
            try Self.moveOnce()
            let before = try Self.openFilesAndThreads()
            for _ in 0..<10 { try Self.moveOnce() }
            // The kernel lists a thread for a moment after it was joined.
            let deadline = MonotonicClock.now() + 10_000_000_000
            while try Self.openFilesAndThreads() != before {
                let after = try Self.openFilesAndThreads()
                guard MonotonicClock.now() < deadline else {
                    throw Missing(what: "\(before) files and threads, there are \(after)")
                }
                usleep(1000)
            }
        }
    }

    static func moveOnce() throws {
        let ferry = try Ferry(pageCounts: [100])
        defer { ferry.end() }
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        try ferry.connect(source)
        source.detach()
        ferry.destination.detach()
        source.freeze()
        try ferry.connect(source)
        try ferry.touch(region: 0, [1, 50])
        try source.startPush()
        guard ferry.waitUntilResident() else { throw Missing(what: "pages") }
        ferry.waitForReaders()
    }

    static func openFilesAndThreads() throws -> [Int] {
        try ["/proc/self/fd", "/proc/self/task"].map { try FileManager.default.contentsOfDirectory(atPath: $0).count }
    }
}
