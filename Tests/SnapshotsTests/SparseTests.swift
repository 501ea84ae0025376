import LinuxSystem
import OwnThread
import PageProtocol
import SnapshotClient
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SparseTests {
    private static let pageCount = 16 << 30 / 4096
    /// The written pages, in runs of neighbours, so that the test would notice read-ahead.
    private static let written = [0..<64, 1_000_000..<1_000_064, pageCount - 64..<pageCount]

    private func makeFile(in folder: String) throws -> SparseFile {
        let file = try SparseFile(in: folder, byteCount: 16 << 30)
        for pages in Self.written { try file.write(pages: pages) }
        return file
    }

    private func pagesInMemory(of file: SparseFile) throws -> [Int] {
        try file.pagesInMemory(0..<Self.pageCount)
    }

    @Test func `of a file of 16 GiB, at most 3 MiB are read without a request`() async throws {
        let file = try makeFile(in: "/tmp")
        try file.evict()
        try #require(try pagesInMemory(of: file) == [])
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: UInt64(Self.pageCount))])
            let (urgent, bulk) = (try client.join(.urgent), try client.join(.bulk))
            for page in [5, 1_000_030, Self.pageCount - 1] {
                let answer = try urgent.stream.ask(PageRun(region: 0, count: 1, first: UInt64(page)))
                #expect(answer.bytes == SparseFile.content(ofPage: page))
            }
            let run = PageRun(region: 0, count: 40, first: 1_000_040)
            #expect(try bulk.stream.ask(run).zeroPages == 16)
            let hole = PageRun(region: 0, count: 256, first: 2_000_000)
            #expect(try bulk.stream.ask(hole).zeroPages == 256)
        }
        let requested = [1_000_030] + Array(1_000_040..<1_000_064)
        let (first, last) = (Array(0..<64), Array(Self.pageCount - 64..<Self.pageCount))
        // The first and the last MiB are read for the digest; of the pages between, none that was written is in its
        // spread.
        #expect(try pagesInMemory(of: file) == first + requested + last)
    }

    @Test(arguments: ["/tmp", "/dev/shm"])
    func `requests do not fill holes of the file`(folder: String) async throws {
        let file = try makeFile(in: folder)
        let taken = file.takenBytes
        try await Serving.of(file.path) { serving in
            let client = try SnapshotClient(to: serving.address)
            let slices = [
                SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 2_000_000),
                SnapshotSlice(offset: 8 << 30, pageSize: 2 << 20, pageCount: 4096),
            ]
            try client.take(slices)
            let urgent = try client.join(.urgent)
            for first in stride(from: 64, to: 5184, by: 256) {
                let run = PageRun(region: 0, count: 256, first: UInt64(first))
                #expect(try urgent.stream.ask(run).zeroPages == 256)
            }
            #expect(try urgent.stream.ask(PageRun(region: 1, count: 1, first: 9), pageSize: 2 << 20).zeroPages == 1)
            #expect(try urgent.stream.ask(PageRun(region: 0, count: 2, first: 63)).zeroPages == 1)
        }
        #expect(file.takenBytes == taken)
        #expect(try file.pagesInMemory(64..<10_000) == [])
    }
}
