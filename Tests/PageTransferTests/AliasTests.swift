import Glibc
import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import LinuxSystem
@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct AliasTests {
    /// Runs a test with small pages, or with huge pages if the pool has enough of them.
    private func withFerry(
        _ pageSize: Int,
        _ pageCount: Int,
        _ body: (AliasedFerry) throws -> Void
    ) throws {
        func run() throws {
            let ferry = try AliasedFerry(pageCount: pageCount, pageSize: pageSize)
            defer { ferry.end() }
            try body(ferry)
        }
        if pageSize == 4096 { try run() } else { try HugePages.with(free: 2 * pageCount) { try run() } }
    }

    @Test(arguments: [(4096, 1000), (HugePagePool.pageSize, 9)])
    func `faults fetch every page, including zero pages`(pageSize: Int, pageCount: Int) throws {
        try withFerry(pageSize, pageCount) { ferry in
            let source = try ferry.serve()
            defer { source.detach() }
            for _ in 0..<3 { try ferry.touch((0..<pageCount).shuffled()) }
            ferry.waitForTouches()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
            let progress = ferry.destination.progress
            #expect(progress.demand == pageCount && progress.duplicate == 0 && progress.waiting == 0)
        }
    }

    @Test(arguments: [(4096, 3000), (HugePagePool.pageSize, 9)])
    func `the push delivers every page, and another mapping shows it`(pageSize: Int, pageCount: Int) throws {
        try withFerry(pageSize, pageCount) { ferry in
            let other = try Mapping(sharing: ferry.file)
            let source = try ferry.serve()
            defer { source.detach() }
            try source.startPush()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
            #expect(memcmp(other.base, ferry.content.base, ferry.content.byteCount) == 0)
            let progress = ferry.destination.progress
            #expect(progress.zero == ferry.zeroPages && progress.pushed == pageCount - ferry.zeroPages)
            #expect(progress.duplicate == 0)
        }
    }

    @Test(arguments: [(4096, 6000), (HugePagePool.pageSize, 18)])
    func `the guest's writes survive while faults and push deliver the same pages`(pageSize: Int, pageCount: Int) throws
    {
        try withFerry(pageSize, pageCount) { ferry in
            let source = try ferry.serve()
            defer { source.detach() }
            for _ in 0..<4 { try ferry.touch((0..<pageCount).shuffled(), writing: true) }
            try source.startPush()
            ferry.waitForTouches()
            #expect(ferry.waitUntilResident())
            source.detach()
            ferry.destination.detach()
            #expect(ferry.wrongPages(written: true) == [])
            let progress = ferry.destination.progress
            #expect(progress.demand + progress.pushed + progress.zero == pageCount)
            #expect(progress.duplicate <= source.progress.requests)
        }
    }

    @Test func `a later copy does not overwrite a page that has arrived, alone or in a run`() async throws {
        let ferry = try AliasedFerry(pageCount: 16)
        defer { ferry.end() }
        let (_, bulk) = try ferry.connectToTest()
        try bulk.stream.send(ferry.frame(3..<4))
        await ferry.waitUntilResident(3)
        ferry.page(3).storeBytes(of: 255, toByteOffset: 4095, as: UInt8.self)
        try bulk.stream.send(ferry.frame(3..<4))
        try bulk.stream.send(ferry.frame(0..<8))
        try bulk.stream.send(.zeroes(PageRun(region: 0, count: 14, first: 2)))
        await ferry.waitUntilResident(15)
        #expect(ferry.page(3).load(as: Int.self) == 3)
        #expect(ferry.page(3).load(fromByteOffset: 4095, as: UInt8.self) == 255)
        #expect((0..<8).filter { $0 != 3 && memcmp(ferry.page($0), ferry.content.page($0), 4096) != 0 } == [])
        #expect(ZeroScan.isZero(ferry.page(8), byteCount: 8 * 4096))
        #expect(ferry.destination.progress.duplicate == 2 + 6)
    }

    @Test(arguments: [4096, HugePagePool.pageSize])
    func `a fault fetches a page of which the push has delivered half, and the other half is dropped`(
        pageSize: Int
    ) throws {
        try withFerry(pageSize, 4) { ferry in
            let (urgent, bulk) = try ferry.connectToTest()
            let (frame, body) = ferry.frame(1..<2)
            try bulk.stream.send(frame, body: Array(body[..<(pageSize / 2)]))
            // The half is in the file by now, but no mapping shows it.
            let seen = try Mapping(sharing: ferry.file)
            while seen.base.load(fromByteOffset: pageSize + pageSize / 2 - 1, as: UInt8.self) == 0 {
                JoinedThread.yield()
            }
            try ferry.touch([1])
            #expect(try urgent.stream.receiveFrame()?.run == frame.run)
            #expect(ferry.destination.progress.pagesResident == 0)
            try urgent.stream.send(frame, body: body)
            ferry.waitForTouches()
            #expect(memcmp(ferry.page(1), ferry.content.page(1), pageSize) == 0)
            memset(ferry.page(1), 255, pageSize)
            try bulk.stream.send(Array(body[(pageSize / 2)...]))
            try bulk.stream.send(ferry.frame(3..<4))
            while !ferry.destination.memory.resident[0].contains(3) { JoinedThread.yield() }
            #expect((0..<pageSize).allSatisfy { ferry.page(1).load(fromByteOffset: $0, as: UInt8.self) == 255 })
            #expect(ferry.destination.progress.duplicate == 1)
        }
    }

    @Test(arguments: [4096, HugePagePool.pageSize])
    func `a page whose link breaks halfway stays missing, and the next link delivers all of it`(pageSize: Int) throws {
        try withFerry(pageSize, 9) { ferry in
            let (urgent, bulk) = try ferry.connectToTest()
            let (frame, body) = ferry.frame(0..<1)
            try bulk.stream.send(frame, body: Array(repeating: 99, count: pageSize / 2 + 7))
            try ferry.touch([4])
            #expect(try urgent.stream.receiveFrame()?.run.first == 4)
            try urgent.stream.send(ferry.frame(4..<5).frame, body: Array(body[..<100]))
            let seen = try Mapping(sharing: ferry.file)
            while seen.base.load(fromByteOffset: pageSize / 2 + 6, as: UInt8.self) != 99 { JoinedThread.yield() }
            while seen.base.load(fromByteOffset: 4 * pageSize + 99, as: UInt8.self) == 0 { JoinedThread.yield() }
            urgent.stream.shutdown()
            bulk.stream.shutdown()
            #expect(ferry.laneEvents.loss() != nil)
            ferry.destination.detach()
            // The reader waits although part of the page is in the file: a partial page is never shown.
            try ferry.touch([0])
            while ferry.destination.progress.waiting < 2 { JoinedThread.yield() }
            #expect(ferry.destination.progress.pagesResident == 0)
            let source = try ferry.serve()
            defer { source.detach() }
            try source.startPush()
            ferry.waitForTouches()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
        }
    }

    @Test(arguments: [4096, HugePagePool.pageSize])
    func `zeros replace the part of a page that a broken lane has left`(pageSize: Int) throws {
        try withFerry(pageSize, 6) { ferry in
            let (_, bulk) = try ferry.connectToTest()
            try bulk.stream.send(ferry.frame(2..<3).frame, body: Array(repeating: 99, count: pageSize / 2))
            let seen = try Mapping(sharing: ferry.file)
            while seen.base.load(fromByteOffset: 2 * pageSize + pageSize / 2 - 1, as: UInt8.self) != 99 {
                JoinedThread.yield()
            }
            bulk.stream.shutdown()
            #expect(ferry.laneEvents.loss() != nil)
            ferry.destination.detach()
            let source = try ferry.serve()
            defer { source.detach() }
            try source.startPush()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
        }
    }

    @Test(arguments: [4096, HugePagePool.pageSize])
    func `a page that was unmapped after its arrival shows its content again, and a dropped page shows zeros`(
        pageSize: Int
    ) throws {
        try withFerry(pageSize, 6) { ferry in
            let source = try ferry.serve()
            defer { source.detach() }
            try ferry.touch([0, 1])
            ferry.waitForTouches()
            #expect(madvise(ferry.page(0), pageSize, MADV_DONTNEED) == 0)
            #expect(madvise(ferry.page(1), pageSize, MADV_REMOVE) == 0)
            try ferry.touch([0, 1])
            ferry.waitForTouches()
            #expect(memcmp(ferry.page(0), ferry.content.page(0), pageSize) == 0)
            #expect(ZeroScan.isZero(ferry.page(1), byteCount: pageSize))
            #expect(source.progress.requests == 2)
        }
    }

    @Test(arguments: [true, false])
    func `an agent that has stopped keeps no mapping of the memory, complete or not`(isComplete: Bool) throws {
        let ferry = try AliasedFerry(pageCount: 6)
        defer { ferry.end() }
        func mappings() -> Int {
            var status = stat()
            fstat(ferry.file.descriptor.raw, &status)
            let maps = ProcessFile.text("/proc/self/maps") ?? ""
            return maps.split(separator: "\n").count { $0.contains(" \(status.st_ino) ") }
        }
        let source = try ferry.serve()
        defer { source.detach() }
        #expect(mappings() == 2)
        if isComplete {
            try source.startPush()
            #expect(ferry.waitUntilResident())
        }
        ferry.destination.stop()
        #expect(mappings() == 1)
    }

    @Test func `a run that lies in two mappings is placed`() throws {
        let ferry = try AliasedFerry(pageCount: 96)
        defer { ferry.end() }
        #expect(madvise(ferry.page(20), 11 * 4096, MADV_DONTFORK) == 0)
        let source = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
    }

    @Test(arguments: [4096, HugePagePool.pageSize])
    func `truncating the file stops the placing of pages, but not the agent`(pageSize: Int) throws {
        try withFerry(pageSize, 6) { ferry in
            let (_, bulk) = try ferry.connectToTest()
            #expect(ftruncate(ferry.file.descriptor.raw, pageSize) == 0)
            try bulk.stream.send(ferry.frame(4..<5))
            #expect(ferry.failure()?.hasPrefix("a page is not in the memory file") == true)
        }
    }

    @Test func `zero pages for a truncated file stop the placing of pages, but not the agent`() throws {
        let ferry = try AliasedFerry(pageCount: 6)
        defer { ferry.end() }
        let (_, bulk) = try ferry.connectToTest()
        #expect(ftruncate(ferry.file.descriptor.raw, 4096) == 0)
        try bulk.stream.send(.zeroes(PageRun(region: 0, count: 2, first: 3)))
        #expect(ferry.failure()?.hasPrefix("a page is not in the memory file") == true)
    }
}

extension StreamSocket {
    fileprivate func send(_ frame: (frame: LaneFrame, body: [UInt8])) throws {
        try send(frame.frame, body: frame.body)
    }
}
