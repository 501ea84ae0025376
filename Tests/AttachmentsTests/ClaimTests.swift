import Glibc
import Guest
import HugePages
import LandedGuest
import LinuxSystem
import LogLines
import OwnThread
import Testing

@testable import Attachments

/// False claims of a process about its memory.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct ClaimTests {
    /// Hands regions over with a userfaultfd that is registered for other ranges.
    private func handOver(_ process: AttachingProcess, registering registered: [PageRange]) throws {
        let userfaultfd = try Userfaultfd()
        for range in registered { try userfaultfd.register(range) }
        try process.socket.send(process.handOff, with: userfaultfd)
    }

    @Test(arguments: [0, 2])
    func `memory that its process has not registered, or only half, is registered by the agent`(pages: Int) throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path, pageCounts: [4])
        let range = process.regions[0].range
        let half = PageRange(address: range.address, pageSize: 4096, pageCount: pages)
        try handOver(process, registering: pages == 0 ? [] : [half])
        #expect(site.log.first(containing: "has attached") != nil)
        let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
        let address = UInt(range.address(ofPage: 3))
        let reader = try JoinedThread(name: "reader") {
            _ = UnsafeRawPointer(bitPattern: address)?.load(as: UInt8.self)
        }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        #expect(try prepared.memory.userfaultfd.wait(or: EventDescriptor()) == .events)
        try prepared.memory.userfaultfd.read(into: &events)
        #expect(prepared.memory.userfaultfd.zero(range.address(ofPage: 3), byteCount: 4096) == .placed(bytes: 4096))
        reader.join()
    }

    @Test(arguments: [true, false])
    func `memory with a resident page is refused, even if its process has registered it since`(registers: Bool) throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path, pageCounts: [2, 5])
        process.regions[1].page(3).storeBytes(of: 1, as: UInt8.self)
        try handOver(process, registering: registers ? process.regions.map(\.range) : [])
        let refusal = try #require(try process.nextOrder()?.refusal)
        #expect(
            refusal
                == "page 3 of region 1 is already present, and would keep its content; hand over memory that was never "
                + "touched, or drop it first (MADV_DONTNEED)"
        )
        // A page that was only read is resident too.
        let reader = try AttachingProcess(at: site.path, pageCounts: [4])
        _ = reader.regions[0].page(1).load(as: UInt8.self)
        try handOver(reader, registering: [])
        #expect(try reader.nextOrder()?.refusal?.hasPrefix("page 1 of region 0 is already present") == true)
        _ = try site.attach()
    }

    @Test func `memory with a hole is refused with the hole's address`() throws {
        let site = try Site()
        defer { site.end() }
        // Use a process of its own, since another test's memory might be mapped into the hole here. The process calls
        // UFFDIO_API and maps 300 pages. Three of them become a mapping of their own (MADV_DONTFORK), which is not a
        // hole. Two pages are unmapped.
        let number = try Python.run(
            "import ctypes, fcntl, struct; c = ctypes.CDLL(None); u = c.syscall(323, 0o4000); "
                + "fcntl.ioctl(u, 0xc018aa3f, struct.pack('QQQ', 0xaa, 0, 0)); c.mmap.restype = ctypes.c_size_t; "
                + "p = ctypes.c_size_t; m = c.mmap(None, p(300 * 4096), 3, 0x22, -1, p(0)); "
                + "c.madvise(p(m + 40 * 4096), p(3 * 4096), 10); c.munmap(p(m + 117 * 4096), p(2 * 4096)); "
                + "s.connect('\(site.path)'); h = struct.pack('<IHHQQII', 0x4f484750, 1, 1, m, 300 * 4096, 4096, 0); "
                + "s.sendmsg([h], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [u]))]); s.recv(1)"
        )
        let line = try #require(site.log.first(containing: "refused process \(number) "))
        #expect(line.contains("is not mapped at address "), "\(line)")
        let numbers = line.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }.filter { $0 > 1 << 32 }
        try #require(numbers.count == 2, "\(line)")
        #expect(numbers[1] - numbers[0] == 117 * 4096)
        _ = try site.attach()
    }

    @Test func `memory that is not mapped, or belongs to another userfaultfd, is refused`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path)
        let userfaultfd = try Userfaultfd()
        let nowhere = AttachingProcess.handOff([(address: 1 << 40, byteCount: 1 << 20)])
        try process.socket.send(nowhere, with: userfaultfd)
        #expect(try process.nextOrder()?.refusal?.contains("cannot be registered") == true)
        let second = try AttachingProcess(at: site.path)
        let other = try Userfaultfd()
        try other.register(second.regions[0].range)
        try second.socket.send(second.handOff, with: userfaultfd)
        #expect(try second.nextOrder()?.refusal?.hasSuffix("is registered with another userfaultfd") == true)
        _ = try site.attach()
    }

    @Test func `memory of small pages that is handed over as huge pages is refused`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path, pageCounts: [1024])
        let size = UInt64(HugePagePool.pageSize)
        let address = (process.regions[0].range.address + size - 1) / size * size
        let userfaultfd = try Userfaultfd()
        let handOff = AttachingProcess.handOff(pageSize: UInt32(size), [(address: address, byteCount: size)])
        try process.socket.send(handOff, with: userfaultfd)
        #expect(try process.nextOrder()?.refusal?.hasSuffix("is not mapped in pages of 2097152 bytes") == true)
    }

    @Test func `memory of huge pages is accepted, and refused if one page is already resident`() throws {
        try HugePages.with(free: 4) {
            let site = try Site()
            defer { site.end() }
            let region = try MemoryRegion(name: "huge", pageSize: HugePagePool.pageSize, pageCount: 2)
            let range = region.range
            let userfaultfd = try Userfaultfd()
            let handOff = AttachingProcess.handOff(
                pageSize: UInt32(range.pageSize),
                [(address: range.address, byteCount: range.byteCount)]
            )
            let process = try AttachingProcess(at: site.path)
            try process.socket.send(handOff, with: userfaultfd)
            #expect(site.log.first(containing: "has attached") != nil)
            let landed = try site.landing.land(Site.guest(pageCounts: [2], pageSize: HugePagePool.pageSize))
            #expect(landed.memory.pageTable != nil)
            try userfaultfd.unregister(range)
            region.page(1).storeBytes(of: 1, as: UInt8.self)
            let second = try AttachingProcess(at: site.path)
            try second.socket.send(handOff, with: userfaultfd)
            #expect(try second.nextOrder()?.refusal?.hasPrefix("page 1 of region 0 is already present") == true)
        }
    }

    /// The pages of a file in which two regions lie.
    struct Pieces: Sendable, CustomTestStringConvertible {
        let first: Range<UInt64>
        let second: Range<UInt64>
        let isRefused: Bool
        var testDescription: String { "\(first) and \(second)" }
    }

    @Test(arguments: [
        Pieces(first: 0..<2, second: 2..<4, isRefused: false),
        Pieces(first: 1..<3, second: 2..<4, isRefused: true),
        Pieces(first: 0..<6, second: 3..<5, isRefused: true),
        Pieces(first: 2..<4, second: 2..<4, isRefused: true),
    ])
    func `regions that share bytes of one memory file are refused`(pieces: Pieces) throws {
        let site = try Site()
        defer { site.end() }
        let file = try MemoryFile(name: "guest", byteCount: 6 * 4096)
        // Use two mappings, so that the addresses do not overlap.
        let mappings = try [Mapped(file), Mapped(file)]
        let regions = zip(mappings, [pieces.first, pieces.second]).map { mapped, pages in
            let base = UInt64(UInt(bitPattern: mapped.mapping.base))
            return (
                address: base + pages.lowerBound * 4096, byteCount: UInt64(pages.count) * 4096, file: UInt32(1),
                offset: pages.lowerBound * 4096
            )
        }
        let process = try AttachingProcess(at: site.path)
        try process.socket.send(AttachingProcess.handOff(inFiles: regions), with: Userfaultfd(), file)
        if pieces.isRefused {
            let refusal = try #require(try process.nextOrder()?.refusal)
            #expect(refusal.hasPrefix("regions 0 and 1 share bytes of one memory file, from byte "))
        } else {
            #expect(site.log.first(containing: "has attached") != nil)
        }
    }

    private final class Mapped: Sendable {
        let mapping: Mapping
        init(_ file: borrowing MemoryFile) throws { mapping = try Mapping(sharing: file) }
    }

    @Test func `a process with pages of a guest that left is told so, and accepts no other guest`()
        throws
    {
        let site = try Site()
        defer { site.end() }
        let process = try site.attach()
        do {
            let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
            let address = prepared.memory.ranges[0].address(ofPage: 2)
            #expect(prepared.memory.userfaultfd.zero(address, byteCount: 4096) == .placed(bytes: 4096))
            prepared.memory.resident[0].insert(2)
        }
        let refusal = try process.nextOrder()?.refusal
        #expect(refusal == "pages of a migration that failed are in its memory; attach again with new memory")
        // Missing pages stay missing: the agent keeps the last copy of the userfaultfd as long as the process lives.
        #expect(process.isRegistered(page: 0))
        #expect(try process.nextOrder() == nil)
    }
}
