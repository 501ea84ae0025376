import Glibc
import Guest
import HugePages
import LandedGuest
import LinuxSystem
import LogLines
import OwnThread
import Testing

@testable import Attachments

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HandOffTests {
    @Test func `a process that hands its memory over becomes a prepared guest`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach(pageCounts: [4, 7])
        let prepared = try site.landing.land(Site.guest(pageCounts: [4, 7]))
        #expect(prepared.memory.ranges == process.regions.map(\.range))
        #expect(prepared.memory.resident.map(\.pageCount) == [4, 7])
        #expect(prepared.memory.resident.allSatisfy { $0.count == 0 })
        // The userfaultfd belongs to the process: pages that it places arrive in the process's memory.
        let content = try MemoryRegion(name: "content", pageCount: 1)
        content.base.storeBytes(of: 8, as: UInt8.self)
        let address = process.regions[1].range.address(ofPage: 6)
        #expect(
            prepared.memory.userfaultfd.copy(to: address, from: content.base, byteCount: 4096) == .placed(bytes: 4096)
        )
        #expect(process.regions[1].page(6).load(as: UInt8.self) == 8)
    }

    @Test func `memory of huge pages accepts only a guest of huge pages`() throws {
        try HugePages.with(free: 4) {
            let site = try Site()
            defer { site.end() }
            let region = try MemoryRegion(name: "huge", pageSize: HugePagePool.pageSize, pageCount: 4)
            let range = region.range
            let process = try AttachingProcess(at: site.path)
            try process.handOver(
                AttachingProcess.handOff(pageSize: 2 << 20, [(address: range.address, byteCount: range.byteCount)])
            )
            #expect(site.log.first(containing: "has attached") != nil)
            let small = Site.guest(pageCounts: [4])
            let error = try #require(throws: AttachmentError.self) { _ = try site.landing.land(small) }
            #expect(error.description.hasSuffix("have 4 pages of 2097152 bytes, the workload's 4 pages of 4096 bytes"))
            var huge = small
            huge.regions[0].pageSize = 2 << 20
            let prepared = try site.landing.land(huge)
            #expect(prepared.memory.ranges == [range])
        }
    }

    /// A hand-off that is refused, and a part of the reason.
    struct Refused: Sendable, CustomTestStringConvertible {
        let reason: String
        let bytes: [UInt8]
        var testDescription: String { reason }

        init(_ reason: String, _ bytes: [UInt8]) {
            self.reason = reason
            self.bytes = bytes
        }
    }

    private static let region = (address: UInt64(0x10000), byteCount: UInt64(0x4000))

    @Test(arguments: [
        Refused("magic PGHO", AttachingProcess.handOff(magic: 0x5047_484f, [region])),
        Refused("has version 4, the newest here is 3", AttachingProcess.handOff(version: 4, [region])),
        Refused("announces 1 regions and has 32 bytes", AttachingProcess.handOff(version: 2, [region])),
        Refused(
            "region 0 names memory file 16; at most 15",
            AttachingProcess.handOff(inFiles: [(address: 0x10000, byteCount: 0x4000, file: 16, offset: 0)])
        ),
        Refused(
            "came with 1 descriptors instead of 3",
            AttachingProcess.handOff(inFiles: [(address: 0x10000, byteCount: 0x4000, file: 2, offset: 0)])
        ),
        Refused("announces 0 regions", AttachingProcess.handOff([])),
        Refused(
            "announces 65 regions",
            AttachingProcess.handOff((0..<65).map { (address: UInt64(0x10000 * ($0 + 1)), byteCount: 4096) })
        ),
        Refused("announces 1 regions and has 31 bytes", AttachingProcess.handOff([region]).dropLast()),
        Refused("announces 1 regions and has 33 bytes", AttachingProcess.handOff([region]) + [0]),
        Refused("less than its header", [0x50, 0x47, 0x48]),
        Refused("pages of 8192 bytes; only 4096 and 2097152", AttachingProcess.handOff(pageSize: 8192, [region])),
        Refused(
            "region 0 has 1 where version 1 has 0; memory files are of version 2",
            AttachingProcess.handOff([region]).dropLast(4) + [1, 0, 0, 0]
        ),
        Refused("no range of pages", AttachingProcess.handOff(pageSize: 2 << 20, [region])),
        Refused("pages of 0 bytes", AttachingProcess.handOff(pageSize: 0, [region])),
        Refused("no range of pages", AttachingProcess.handOff([(address: 0x10001, byteCount: 4096)])),
        Refused("no range of pages", AttachingProcess.handOff([(address: 0x10000, byteCount: 4097)])),
        Refused("no range of pages", AttachingProcess.handOff([(address: 0x10000, byteCount: 0)])),
        Refused("no range of pages", AttachingProcess.handOff([(address: .max - 4095, byteCount: 8192)])),
        Refused("no range of pages", AttachingProcess.handOff([(address: 1 << 56, byteCount: 4096)])),
        Refused("two regions overlap", AttachingProcess.handOff([region, (address: 0x13000, byteCount: 4096)])),
        Refused("two regions overlap", AttachingProcess.handOff([region, region])),
        Refused(
            "the regions up to region 1 have more than 1 TiB together",
            AttachingProcess.handOff([region, (address: 1 << 44, byteCount: 1 << 40)])
        ),
        Refused(
            "the regions up to region 0 have more than 1 TiB together",
            AttachingProcess.handOff([(address: 1 << 44, byteCount: 1 << 44)])
        ),
    ])
    func `a bad hand-off is refused in one line that names the process, and the next is served`(
        refused: Refused
    ) throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path)
        try process.handOver(refused.bytes)
        let line = try #require(site.log.first(containing: "refused"))
        #expect(line.hasPrefix("refused process \(getpid()) at unix:\(site.path): "))
        #expect(line.contains(refused.reason))
        #expect(!line.contains("\n"))
        let told = try #require(try process.nextOrder()?.refusal)
        #expect(line.hasSuffix(": " + told))
        #expect((try? process.nextOrder()) == nil)
        _ = try site.attach()
        _ = try site.workload()
    }

    @Test func `a process that hands over no descriptor is refused`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path)
        try process.socket.send(process.handOff)
        let line = try #require(site.log.first(containing: "refused process \(getpid())"))
        #expect(line.hasSuffix("the hand-off came with 0 descriptors instead of one"))
        _ = try site.attach()
    }

    @Test func `a userfaultfd with unsupported events is refused`() throws {
        let site = try Site()
        defer { site.end() }
        try AttachingProcess(at: site.path).handOver(features: .eventRemove)
        #expect(site.log.first(containing: "refused process \(getpid())")?.contains("EVENT_REMOVE") == true)
        _ = try site.attach()
    }

    @Test(arguments: [
        Userfaultfd.Features.eventFork, .eventRemap, .eventRemove, .eventUnmap, .threadID, .events.union(.threadID),
    ])
    func `a userfaultfd with events that are read is accepted since version 3`(features: Userfaultfd.Features) throws {
        let site = try Site()
        defer { site.end() }
        let process = try RunningProcess(at: site.path)
        try process.socket.send(process.handOff(role: 2), with: Userfaultfd(features: features))
        #expect(try process.next()?.request == .accepted)
        let landed = try site.landing.land(Site.guest(pageCounts: [4]))
        #expect(landed.memory.raisesEvents == !features.isDisjoint(with: .events))
    }

    @Test func `a userfaultfd that raises signals is refused in version 3 too`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try RunningProcess(at: site.path)
        try process.socket.send(process.handOff(role: 2), with: Userfaultfd(features: [.sigbus, .eventRemove]))
        let refusal = try #require(try process.next())
        #expect(
            String(decoding: refusal.content, as: UTF8.self)
                == "the userfaultfd has the features SIGBUS, which are not served; open it without them"
        )
    }

    @Test func `a process that waits may drop memory, and is refused a workload after it has unmapped some`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try RunningProcess(at: site.path)
        try process.socket.send(process.handOff(role: 2), with: Userfaultfd(features: .events))
        #expect(try process.next()?.request == .accepted)
        // Both calls wait until their events are read.
        #expect(madvise(process.memory.page(0), 4096, MADV_DONTNEED) == 0)
        do {
            // A workload that does not use the process leaves it as it is.
            _ = try site.landing.land(Site.guest(pageCounts: [4]))
        }
        let page = process.memory.page(1)
        #expect(mmap(page, 4096, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page)
        let reason = "process \(getpid()) has unmapped memory that it has handed over while it waited; start it again"
        #expect {
            _ = try site.landing.land(Site.guest(pageCounts: [4]))
        } throws: {
            "\($0)" == reason
        }
        #expect(try process.next()?.request == .refused)
        // A process that was refused does not wait either.
        #expect(madvise(process.memory.page(2), 4096, MADV_DONTNEED) == 0)
    }

    @Test(arguments: [
        ("os.open('/dev/null', 0)", "the descriptor is no userfaultfd"),
        // This is the system call userfaultfd(2), without UFFDIO_API.
        (
            "__import__('ctypes').CDLL(None).syscall(323, 0)",
            "the userfaultfd is not initialized; call UFFDIO_API before handing it over"
        ),
        ("0, 1", "the hand-off came with 2 descriptors instead of one"),
    ])
    func `a process that hands over another descriptor is refused by its process id`(
        descriptors: String,
        reason: String
    ) throws {
        let site = try Site()
        defer { site.end() }
        let number = try Python.run(
            "d = array.array('i', [\(descriptors)]); s.connect('\(site.path)'); "
                + "s.sendmsg([bytes(\(AttachingProcess.handOff([Self.region])))], "
                + "[(socket.SOL_SOCKET, socket.SCM_RIGHTS, d)]); s.recv(1)"
        )
        let line = try #require(site.log.first(containing: "refused process \(number) "))
        #expect(line.hasSuffix(reason))
        _ = try site.attach()
    }

    @Test func `a process that connects and disconnects blocks no one`() throws {
        let site = try Site()
        defer { site.end() }
        do { _ = try AttachingProcess(at: site.path) }
        #expect(site.log.first(containing: "refused process \(getpid())") != nil)
        _ = try site.attach()
    }

    @Test func `a silent process delays the next process only for seconds`() async throws {
        let site = try Site()
        defer { site.end() }
        let silent = try AttachingProcess(at: site.path)
        _ = try await apart { try site.attach() }
        #expect(site.log.first(containing: "timed out") != nil)
        #expect(try silent.nextOrder()?.refusal?.contains("timed out") == true)
        #expect(try silent.nextOrder() == nil)
    }

    @Test func `closing the landing removes the socket`() throws {
        let site = try Site()
        site.end()
        #expect(access(site.path, F_OK) != 0)
        #expect(throws: SystemError.self) { _ = try AttachingProcess(at: site.path) }
    }
}
