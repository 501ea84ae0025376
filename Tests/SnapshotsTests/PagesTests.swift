import Glibc
import LinuxSystem
import LogLines
import OwnThread
import PageFetcher
import PageProtocol
import SnapshotClient
import Synchronization
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct PagesTests {
    private static let mebibyte = 1 << 20

    /// A file of 12 MiB: data, a hole, a page of zeros, and data again.
    private func makeFile(in folder: String = "/tmp") throws -> SparseFile {
        let file = try SparseFile(in: folder, byteCount: 12 * Self.mebibyte)
        try file.write(pages: 0..<300)
        try file.write(pages: stride(from: 1024, to: 2048, by: 3))
        return file
    }

    /// Two regions in pages of both sizes, the one with the higher address first.
    private static let slices = [
        SnapshotSlice(offset: 8 << 20, pageSize: 2 << 20, pageCount: 2),
        SnapshotSlice(offset: 4096, pageSize: 4096, pageCount: 2000),
    ]

    /// Requests every page of both regions in runs of random length, on each lane in turn.
    private func check(_ client: SnapshotClient, against file: SparseFile, seed: Int) throws {
        let identity = try client.take(Self.slices)
        #expect(identity.byteCount == 12 << 20)
        let lanes = try [client.join(.urgent), client.join(.bulk), client.join(.urgent, index: 1)]
        for page in 0..<2 {
            let run = PageRun(region: 0, count: 1, first: UInt64(page))
            let answer = try lanes[page].stream.ask(run, pageSize: 2 << 20)
            let offset = 8 << 20 + page << 21
            #expect(try answer.bytes == file.bytes(offset..<offset + 2 << 20), "huge page \(page)")
        }
        var first = 0
        var round = seed
        while first < 2000 {
            let count = min(2000 - first, [1, 256, 7, 64, 130][round % 5])
            let run = PageRun(region: 1, count: UInt32(count), first: UInt64(first))
            let answer = try lanes[round % 3].stream.ask(run)
            let offset = 4096 + first * 4096
            #expect(try answer.bytes == file.bytes(offset..<offset + count * 4096), "\(run)")
            first += count
            round += 1
        }
        try client.say(.bye)
        #expect(client.untilHangUp() == nil)
    }

    @Test(arguments: ["/tmp", "/dev/shm"])
    func `each of several clients at a time gets every page as it is in the file`(folder: String) async throws {
        let file = try makeFile(in: folder)
        let failures = Mutex<[String]>([])
        try await Serving.of(file.path) { serving in
            let clients = ThreadGroup()
            for seed in 0..<4 {
                try clients.run("client") { [address = serving.address] in
                    do {
                        try check(SnapshotClient(to: address, urgentLanes: 2), against: file, seed: seed)
                    } catch {
                        failures.withLock { $0.append("\(error)") }
                    }
                }
            }
            clients.join()
        }
        #expect(failures.withLock(\.self) == [])
    }

    @Test func `faulting memory is filled with the server's pages`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let slice = SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 3072)
            let client = try SnapshotClient(to: serving.address)
            try client.take([slice])
            let region = try MemoryRegion(name: "memory", pageCount: 3072)
            let userfaultfd = try Userfaultfd(wished: .threadID)
            try userfaultfd.register(region.range)
            let agent = try PageFetcher(
                userfaultfd: userfaultfd,
                ranges: [region.range],
                resident: [PageBitmap(pageCount: 3072)],
                table: RegionTable(slices: [slice])
            ) { _ in }
            try agent.start()
            defer { agent.stop() }
            try agent.attach(urgent: [client.join(.urgent)], bulk: [client.join(.bulk)]) { _ in }
            for page in 0..<3072 {
                let bytes = UnsafeRawBufferPointer(start: region.page(page), count: 4096)
                guard try Array(bytes) == file.bytes(page * 4096..<(page + 1) * 4096) else {
                    Issue.record("page \(page) is wrong")
                    break
                }
            }
            // A page can be read a moment before it is counted.
            let deadline = MonotonicClock.now() + 10_000_000_000
            while agent.progress.pagesResident < 3072, MonotonicClock.now() < deadline { sched_yield() }
            #expect(agent.progress.pagesResident == 3072)
        }
    }

    @Test func `the server logs what it has sent when a client disconnects`() async throws {
        let file = try makeFile()
        let log = Mutex<LogLines?>(nil)
        try await Serving.of(file.path) { serving in
            log.withLock { $0 = serving.log }
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 3072)])
            let (urgent, bulk) = (try client.join(.urgent), try client.join(.bulk))
            #expect(try urgent.stream.ask(PageRun(region: 0, count: 1, first: 7)).zeroPages == 0)
            #expect(try bulk.stream.ask(PageRun(region: 0, count: 200, first: 200)).zeroPages == 100)
            try client.say(.bye)
            #expect(client.untilHangUp() == nil)
        }
        // Every session has ended when the server has ended.
        let end = "no longer: 2 requests, 201 pages, 100 of them zeros, \(101 * 4096) bytes"
        let lines = log.withLock { $0?.all ?? [] }
        #expect(lines.contains { $0.contains(file.path) && $0.hasSuffix(end) }, "\(lines)")
    }

    @Test func `a probe is answered on either lane`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 1)])
            for lane in [Lane.urgent, .bulk] {
                let socket = try client.join(lane)
                try socket.stream.send(.probe)
                #expect(try socket.stream.receiveFrame() == .probeReply)
            }
        }
    }

    @Test func `a client that reconnects finds the same file`() async throws {
        let file = try makeFile()
        let slices = [SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 1)]
        var identities: Set<SnapshotIdentity> = []
        for _ in 0..<2 {
            try await Serving.of(file.path) { serving in
                for _ in 0..<2 { identities.insert(try SnapshotClient(to: serving.address).take(slices)) }
            }
        }
        #expect(identities.count == 1)
    }
}
