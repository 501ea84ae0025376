import Testing
import WorkingSet

@Suite struct WorkingSetTests {
    private typealias Run = WorkingSet.Run

    @Test func `pages keep the order of their first touch, and neighbours in that order form one run`() throws {
        let set = try Samples.set(16, 17, 16, 18, 3, 17, 2, 19, 20)
        #expect(
            set.runs == [
                Run(first: 16, count: 3), Run(first: 3, count: 1), Run(first: 2, count: 1), Run(first: 19, count: 2),
            ]
        )
        #expect(set.pageCount == 7)
        #expect(set.byteCount == 7 * 4096)
        #expect(set.window == 2000)
    }

    @Test func `a guest that touched nothing has an empty working set`() throws {
        let set = try WorkingSet(pages: [], of: Samples.memory(), window: 0)
        #expect(set.runs.isEmpty)
        #expect(set.shareOfMemory == 0)
        #expect(set.share(inRunsOf: 16) == 0)
        #expect(set.pieces(ofAtMost: 1).map { $0 }.isEmpty)
    }

    @Test func `a page beyond the snapshot is refused`() throws {
        #expect(try Samples.set(255).pageCount == 1)
        #expect(throws: WorkingSetError("page 256 lies beyond the 256 pages of the snapshot")) {
            try Samples.set(0, 256)
        }
    }

    @Test func `the shares of the snapshot and of long runs are computed`() throws {
        let set = try WorkingSet(pages: Array(0..<16) + Array(32..<47) + [100], of: Samples.memory(), window: 1)
        #expect(set.shareOfMemory == 0.125)
        #expect(set.share(inRunsOf: 16) == 0.5)
        #expect(set.share(inRunsOf: 1) == 1)
    }

    @Test func `pieces are the runs in order, split at the bound`() throws {
        let set = try WorkingSet(pages: Array(10..<17) + [3], of: Samples.memory(), window: 1)
        let three = [
            Run(first: 10, count: 3), Run(first: 13, count: 3), Run(first: 16, count: 1), Run(first: 3, count: 1),
        ]
        #expect(Array(set.pieces(ofAtMost: 3)) == three)
        #expect(Array(set.pieces(ofAtMost: 7)) == set.runs)
        #expect(Array(set.pieces(ofAtMost: .max)) == set.runs)
        #expect(set.pieces(ofAtMost: 1).map(\.first) == [10, 11, 12, 13, 14, 15, 16, 3])
    }

    @Test func `a working set fits every snapshot of the same size in the same pages, and no other`() throws {
        let set = try Samples.example()
        try set.requireMemory(Samples.memory())
        let huge = try Samples.memory(pageSize: 2 << 20)
        let error = #expect(throws: WorkingSetError.self) { try set.requireMemory(huge) }
        #expect(
            error?.description
                == "it was recorded on a snapshot of 1048576 bytes in pages of 4096, and this one is of 536870912 bytes in "
                + "pages of 2097152"
        )
        #expect(throws: WorkingSetError.self) {
            try set.requireMemory(WorkingSet.Memory(pageSize: 4096, byteCount: 257 * 4096))
        }
    }

    @Test(arguments: [(0, 4096), (8192, 8192), (4096, 0), (4096, 4097), (2 << 20, 4096), (4096, 1 << 44), (4096, .max)])
    func `a memory must consist of whole pages of a supported size`(pageSize: UInt32, byteCount: UInt64) {
        #expect(throws: WorkingSetError.self) { try WorkingSet.Memory(pageSize: pageSize, byteCount: byteCount) }
    }

    @Test func `a working set can have the last page of the largest memory`() throws {
        let memory = try WorkingSet.Memory(pageSize: 4096, byteCount: (1 << 44) - 4096)
        let set = try WorkingSet(pages: [memory.pageCount - 1], of: memory, window: 1)
        #expect(set.runs[0].end == memory.pageCount)
        #expect(try Samples.decode(set.encode()) == set)
        #expect(set.jaccardIndex(with: set) == 1)
        #expect(try WorkingSet.merging([set, set]) == set)
    }
}
