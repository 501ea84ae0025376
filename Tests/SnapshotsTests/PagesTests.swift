import DestinationAgent
import LinuxSystem
import LogLines
import OwnThread
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

    /// Two regions, the one with the higher address first, in pages of both sizes.
    private static let slices = [
        SnapshotSlice(offset: 8 << 20, pageSize: 2 << 20, pageCount: 2),
        SnapshotSlice(offset: 4096, pageSize: 4096, pageCount: 2000),
    ]

    /// Asks for every page of both regions in runs of any length, on lane after lane.
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
    func `clients that ask at once each get every page as it is in the file`(folder: String) async throws {
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

    @Test func `memory that faults is filled by the server's pages`() async throws {
        let file = try makeFile()
        try await Serving.of(file.path) { serving in
            let slice = SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 3072)
            let client = try SnapshotClient(to: serving.address)
            try client.take([slice])
            let region = try MemoryRegion(name: "memory", pageCount: 3072)
            let userfaultfd = try Userfaultfd(wished: .threadID)
            try userfaultfd.register(region.range)
            let agent = try DestinationAgent(
                userfaultfd: userfaultfd,
                ranges: [region.range],
                resident: [PageBitmap(pageCount: 3072)],
                table: RegionTable(slices: [slice])
            ) { _ in }
            try agent.start()
            defer { agent.stop() }
            try agent.attach(urgent: [client.join(.urgent)], bulk: client.join(.bulk))
            for page in 0..<3072 {
                let bytes = UnsafeRawBufferPointer(start: region.page(page), count: 4096)
                guard try Array(bytes) == file.bytes(page * 4096..<(page + 1) * 4096) else {
                    Issue.record("page \(page) is wrong")
                    break
                }
            }
            #expect(agent.progress.pagesResident == 3072)
        }
    }

    @Test func `what was sent is told when a client leaves`() async throws {
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
        // Every session has ended when the server has.
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

    @Test func `a client that comes again finds the same file`() async throws {
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
