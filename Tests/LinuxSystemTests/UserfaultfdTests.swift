import Foundation
import LinuxSystem
import OwnThread
import Synchronization
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct UserfaultfdTests {
    @Test func `the kernel reports its features`() throws {
        let features = try Userfaultfd.kernelFeatures()
        #expect(features.contains([.eventRemove, .missingShmem, .threadID]))
        #expect(features.description.contains("MISSING_SHMEM"))
        #expect(Userfaultfd.Features(rawValue: 1 << 60).description == "0x1000000000000000")
    }

    @Test func `a fault is answered with the copied bytes`() throws {
        let content = try pages(7)
        let handler = try FaultHandler(pageCount: 4)
        defer { handler.end() }
        try handler.start { handler, page in
            _ = handler.userfaultfd.copy(to: handler.address(page), from: content.base, byteCount: 4096)
        }
        #expect(handler.read(2) == 7)
        #expect(handler.faults.load(ordering: .relaxed) == 1)
    }

    @Test(arguments: [Userfaultfd.Features.threadID, []])
    func `a fault reports its thread if that feature was requested`(features: Userfaultfd.Features) throws {
        // The userfaultfd opens even if the kernel lacks an optional feature.
        let unknown = Userfaultfd.Features(rawValue: 1 << 60)
        let userfaultfd = try Userfaultfd(wished: features.union(unknown))
        let region = try MemoryRegion(name: "faults", pageCount: 1)
        try userfaultfd.register(region.range)
        let stop = try EventDescriptor()
        // The thread's name distinguishes it from the thread of the other case.
        let name = "told-\(features.rawValue)"
        let toucher = try JoinedThread(name: name) { _ = region.page(0).load(as: UInt8.self) }
        let woken = try userfaultfd.wait(or: stop)
        var events = Userfaultfd.EventBuffer(capacity: 1)
        try userfaultfd.read(into: &events)
        let names = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").map { task in
            // A thread of another test may have exited meanwhile.
            (task, try? String(contentsOfFile: "/proc/self/task/\(task)/comm", encoding: .utf8))
        }
        let placed = userfaultfd.zero(region.range.address, byteCount: 4096)
        toucher.join()
        #expect(woken == .events && events.count == 1 && placed == .placed(bytes: 4096))
        let toucherNumber = names.first { $0.1 == "\(name)\n" }.flatMap { UInt32($0.0) }
        let expected = features.isEmpty ? 0 : try #require(toucherNumber)
        #expect(events[0] == .fault(address: region.range.address, thread: expected))
    }

    @Test func `one copy places a run of pages`() throws {
        let content = try pages(1, 2, 3)
        let handler = try FaultHandler(pageCount: 5)
        defer { handler.end() }
        let placed = handler.userfaultfd.copy(to: handler.address(1), from: content.base, byteCount: 3 * 4096)
        #expect(placed == .placed(bytes: 3 * 4096))
        #expect((1...3).map { handler.read($0) } == [1, 2, 3])
    }

    @Test func `a resident page is not overwritten`() throws {
        let content = try pages(1, 2)
        let handler = try FaultHandler(pageCount: 3)
        defer { handler.end() }
        let userfaultfd = handler.address(1)
        #expect(handler.userfaultfd.copy(to: userfaultfd, from: content.base, byteCount: 4096) == .placed(bytes: 4096))
        #expect(handler.userfaultfd.copy(to: userfaultfd, from: content.page(1), byteCount: 4096) == .present)
        #expect(handler.userfaultfd.zero(userfaultfd, byteCount: 4096) == .present)
        #expect(handler.read(1) == 1)
    }

    @Test func `a run stops before a resident page`() throws {
        let content = try pages(1, 2, 3)
        let handler = try FaultHandler(pageCount: 3)
        defer { handler.end() }
        _ = handler.userfaultfd.zero(handler.address(2), byteCount: 4096)
        let placed = handler.userfaultfd.copy(to: handler.address(0), from: content.base, byteCount: 3 * 4096)
        #expect(placed == .placed(bytes: 2 * 4096))
        #expect((0...2).map { handler.read($0) } == [1, 2, 0])
    }

    @Test func `zero pages read as zeros`() throws {
        let handler = try FaultHandler(pageCount: 600)
        defer { handler.end() }
        #expect(handler.userfaultfd.zero(handler.address(0), byteCount: 600 * 4096) == .placed(bytes: 600 * 4096))
        #expect(ZeroScan.isZero(handler.region.base, byteCount: 600 * 4096))
    }

    @Test func `a placement into a range that is not registered reports it as gone`() throws {
        let content = try pages(1)
        let handler = try FaultHandler(pageCount: 1)
        defer { handler.end() }
        let elsewhere = try MemoryRegion(name: "elsewhere", pageCount: 1)
        #expect(
            handler.userfaultfd.copy(to: elsewhere.range.address, from: content.base, byteCount: 4096) == .unmapped
        )
        #expect(handler.userfaultfd.zero(elsewhere.range.address, byteCount: 4096) == .unmapped)
        // No thread waits there, so the call has nothing to do.
        handler.userfaultfd.wake(elsewhere.range.address, byteCount: 4096)
    }

    @Test func `a woken thread faults again if the page is still missing`() throws {
        let content = try pages(9)
        let handler = try FaultHandler(pageCount: 1)
        defer { handler.end() }
        try handler.start { handler, page in
            if handler.faults.load(ordering: .relaxed) == 1 {
                handler.userfaultfd.wake(handler.address(page), byteCount: 4096)
            } else {
                _ = handler.userfaultfd.copy(to: handler.address(page), from: content.base, byteCount: 4096)
            }
        }
        #expect(handler.read(0) == 9)
        #expect(handler.faults.load(ordering: .relaxed) == 2)
    }

    @Test func `dropping pages sends an event, and a copy fails until the event is read`() throws {
        let content = try pages(1)
        let mapping = try Mapping(anonymousBytes: 8 * 4096)
        let address = UInt64(UInt(bitPattern: mapping.base))
        let userfaultfd = try Userfaultfd(features: .eventRemove)
        try userfaultfd.register(PageRange(address: address, pageSize: 4096, pageCount: 8))
        let stop = try EventDescriptor()
        let shared = Shared(mapping: mapping, userfaultfd: userfaultfd)
        // madvise(2) returns only when the event has been read.
        let dropper = try JoinedThread(name: "drop") { try? shared.mapping.advise(.dontNeed) }
        #expect(try shared.userfaultfd.wait(or: stop) == .events)
        let early = shared.userfaultfd.copy(to: address, from: content.base, byteCount: 4096)
        #expect(early == .again)
        var events = Userfaultfd.EventBuffer(capacity: 4)
        try shared.userfaultfd.read(into: &events)
        #expect(events.count == 1)
        #expect(events[0] == .removed(start: address, end: address + 8 * 4096))
        dropper.join()
        #expect(shared.userfaultfd.copy(to: address, from: content.base, byteCount: 4096) == .placed(bytes: 4096))
    }

    private final class Shared: Sendable {
        let mapping: Mapping
        let userfaultfd: Userfaultfd
        init(mapping: consuming Mapping, userfaultfd: consuming Userfaultfd) {
            self.mapping = mapping
            self.userfaultfd = userfaultfd
        }
    }

    @Test func `a flag ends the wait for events`() throws {
        let handler = try FaultHandler(pageCount: 1)
        defer { handler.end() }
        let flag = try EventDescriptor()
        flag.raise()
        #expect(try handler.userfaultfd.wait(or: flag) == .flag)
        var events = Userfaultfd.EventBuffer(capacity: 1)
        try handler.userfaultfd.read(into: &events)
        #expect(events.count == 0)
    }

    #if DEBUG
    @Test func `a placement fails with the errno of the kernel`() throws {
        let content = try pages(1)
        let handler = try FaultHandler(pageCount: 1)
        defer { handler.end() }
        let outcomes: [(Errno, Userfaultfd.Placement)] = [
            (.resourceTemporarilyUnavailable, .again), (.noSuchFileOrDirectory, .unmapped), (.noSuchProcess, .gone),
            (.noMemory, .noMemory),
            (.noSpace, .noMemory), (.invalidArgument, .failed(.invalidArgument)),
        ]
        for (errno, expected) in outcomes {
            let outcome = ForcedErrno.with([.uffdioCopy: [errno]]) {
                handler.userfaultfd.copy(to: handler.address(0), from: content.base, byteCount: 4096)
            }
            #expect(outcome == expected)
        }
    }
    #endif
}
