import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

/// Memory of a process that unmaps parts of it.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct UnmappedTests {
    @Test(arguments: [false, true])
    func `pages that are unmapped before they arrive count as gone, and the push completes`(dropsMemory: Bool) throws {
        let ferry = try Ferry(pageCounts: [200, 8], dropsMemory: dropsMemory)
        defer { ferry.end() }
        #expect(replace(ferry.arriving[0].page(60), 10))
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.destination.progress.removed == 10)
        for page in Array(0..<60) + Array(70..<200) {
            #expect(memcmp(ferry.regions[0].page(page), ferry.arriving[0].page(page), Ferry.pageSize) == 0)
        }
        #expect(!ferry.destinationEvents.all.contains { if case .failed = $0 { true } else { false } })
    }

    @Test func `pages of a memory file that are unmapped before they arrive count as gone`() throws {
        let ferry = try AliasedFerry(pageCount: 90)
        defer { ferry.end() }
        #expect(replace(ferry.page(30), 6))
        let source = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.destination.progress.removed == 6)
    }

    /// Unmaps pages and maps other memory in their place, so that no other test's memory lands there.
    private func replace(_ page: UnsafeMutableRawPointer, _ count: Int) -> Bool {
        mmap(page, count * 4096, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page
    }
}
