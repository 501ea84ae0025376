import Glibc
import Guest
import HugePages
import LandedGuest
import LinuxSystem
import LogLines
import OwnThread
import Testing

@testable import Attachments

/// A Python expression that makes a memory file.
private let memoryFile = "os.memfd_create('m')"

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct MemoryFileTests {
    /// Shared memory of a process that hands its file over; the file's second half is a region.
    private final class Shared: Sendable {
        let file: MemoryFile
        let mapping: Mapping
        let range: PageRange
        let offset: UInt64

        init(pageCount: Int, pageSize: Int = 4096) throws {
            file = try MemoryFile(name: "guest", byteCount: 2 * pageCount * pageSize, pageSize: pageSize)
            mapping = try Mapping(sharing: file)
            offset = UInt64(pageCount * pageSize)
            range = PageRange(
                address: UInt64(UInt(bitPattern: mapping.base)) + offset,
                pageSize: pageSize,
                pageCount: pageCount
            )
        }

        func handOver(to site: Site, _ bytes: [UInt8]? = nil) throws -> StreamSocket {
            // Register only for missing pages, as a process that does not know minor faults might.
            let userfaultfd = try Userfaultfd()
            try userfaultfd.register(range)
            let socket = try StreamSocket(connectingTo: .unix(path: site.path))
            let sound = AttachingProcess.handOff(
                pageSize: UInt32(range.pageSize),
                inFiles: [(address: range.address, byteCount: range.byteCount, file: 1, offset: offset)]
            )
            try socket.send(bytes ?? sound, with: userfaultfd, file)
            return socket
        }
    }

    private final class Flag: Sendable {
        let flag: EventDescriptor
        init(_ flag: consuming EventDescriptor) { self.flag = flag }
    }

    @Test(arguments: [4096, HugePagePool.pageSize])
    func `a region's memory file is mapped from the region's start, and its pages still wait in the region`(
        pageSize: Int
    ) throws {
        func attach() throws {
            let site = try Site()
            defer { site.end() }
            let shared = try Shared(pageCount: 4, pageSize: pageSize)
            let socket = try shared.handOver(to: site)
            #expect(site.log.first(containing: "has attached") != nil)
            let prepared = try site.landing.land(Site.guest(pageCounts: [4], pageSize: pageSize))
            try #require(prepared.memory.ranges == [shared.range] && prepared.memory.aliases.count == 1)
            let alias = try #require(prepared.memory.aliases[0])
            // This places the page in the file, but in no mapping.
            try alias.zero(pageSize..<pageSize + 1)
            let page = shared.mapping.base + Int(shared.offset) + pageSize
            let second = shared.range.address(ofPage: 1)
            let address = UInt(bitPattern: page)
            let hasRead = Flag(try EventDescriptor())
            let reader = try JoinedThread(name: "reader") {
                _ = UnsafeRawPointer(bitPattern: address)?.load(as: UInt8.self)
                hasRead.flag.raise()
            }
            var events = Userfaultfd.EventBuffer(capacity: 1)
            #expect(try prepared.memory.userfaultfd.wait(or: hasRead.flag) == .events)
            try prepared.memory.userfaultfd.read(into: &events)
            #expect(prepared.memory.userfaultfd.map(second, byteCount: pageSize) == .placed(bytes: pageSize))
            #expect(prepared.memory.userfaultfd.map(second, byteCount: pageSize) == .present)
            reader.join()
            socket.shutdown()
        }
        if pageSize == 4096 { try attach() } else { try HugePages.with(free: 8) { try attach() } }
    }

    @Test func `a region that names no file has no memory file`() throws {
        let site = try Site()
        defer { site.end() }
        let process = try AttachingProcess(at: site.path, pageCounts: [4])
        let range = process.regions[0].range
        try process.handOver(
            AttachingProcess.handOff(
                inFiles: [(address: range.address, byteCount: range.byteCount, file: 0, offset: 1)]
            )
        )
        #expect(site.log.first(containing: "has attached") != nil)
        let prepared = try site.landing.land(Site.guest(pageCounts: [4]))
        #expect(prepared.memory.ranges == [range])
        #expect(prepared.memory.aliases.allSatisfy { $0 == nil })
    }

    @Test func `a region that is not a shared mapping is refused`() throws {
        let site = try Site()
        defer { site.end() }
        let shared = try Shared(pageCount: 4)
        let own = try MemoryRegion(name: "own", pageCount: 4)
        let socket = try shared.handOver(
            to: site,
            AttachingProcess.handOff(
                inFiles: [(address: own.range.address, byteCount: own.range.byteCount, file: 1, offset: 0)]
            )
        )
        let line = site.log.first(containing: "refused process \(getpid())")
        #expect(line?.hasSuffix("the region must be a shared mapping of its memory file") == true, "\(line ?? "")")
        socket.shutdown()
    }

    /// The descriptors that a process hands over, as Python expressions, and a part of the reason for the refusal.
    struct Refused: Sendable, CustomTestStringConvertible {
        let descriptors: String
        let reason: String
        var file: UInt32 = 1
        var offset: UInt64 = 0
        var pageSize: UInt32 = 4096
        var testDescription: String { "\(descriptors): \(reason)" }
    }

    @Test(arguments: [
        Refused(descriptors: "0", reason: "came with 1 descriptors instead of 2"),
        Refused(descriptors: "0, \(memoryFile), \(memoryFile)", reason: "came with 3 descriptors instead of 2"),
        Refused(descriptors: "*[0] * 40", reason: "came with 17 descriptors instead of 2"),
        Refused(descriptors: "0, os.pipe()[1]", reason: "descriptor 1 is no memory file"),
        Refused(descriptors: "0, os.open('/tmp', 0)", reason: "descriptor 1 is no memory file"),
        Refused(descriptors: "0, os.open('/tmp', os.O_PATH)", reason: "descriptor 1 is no memory file"),
        Refused(descriptors: "0, os.open('/proc/self/mem', 2)", reason: "descriptor 1 is no memory file"),
        Refused(
            descriptors: "0, os.open('/proc/self/fd/%d' % \(memoryFile), 0)",
            reason: "descriptor 1 is no memory file (memfd) that can be read and written"
        ),
        Refused(
            descriptors: "0, \(memoryFile)",
            reason: "descriptor 1 (0 bytes) cannot hold its region: 16384 bytes at byte 0"
        ),
        Refused(
            descriptors: "0, (f := \(memoryFile), os.truncate(f, 16384))[0]",
            reason: "descriptor 1 (16384 bytes) cannot hold its region: 16384 bytes at byte 4096",
            offset: 4096
        ),
        Refused(
            descriptors: "0, (f := \(memoryFile), os.truncate(f, 65536))[0]",
            reason: "its region: 16384 bytes at byte 100",
            offset: 100
        ),
        Refused(
            descriptors: "0, (f := \(memoryFile), os.truncate(f, 65536))[0]",
            reason: "its region: 16384 bytes at byte 18446744073709547520",
            offset: .max - 4095
        ),
        Refused(
            descriptors: "0, (f := \(memoryFile), os.truncate(f, 8 << 20))[0]",
            reason: "descriptor 1 has pages of 4096 bytes, its region pages of 2097152",
            pageSize: 2 << 20
        ),
        Refused(
            descriptors: "0, (f := os.memfd_create('m', os.MFD_ALLOW_SEALING), os.truncate(f, 65536), "
                + "fcntl.fcntl(f, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE))[0]",
            reason: "descriptor 1: cannot map 16384 bytes of memory: Operation not permitted"
        ),
        Refused(
            descriptors: "0, (f := \(memoryFile), os.truncate(f, 65536))[0]",
            reason: "the descriptor is no userfaultfd"
        ),
    ])
    func `a file that cannot be mapped as a region's memory is refused in one line, and the next is served`(
        refused: Refused
    ) throws {
        let site = try Site()
        defer { site.end() }
        let pageCount: UInt64 = refused.pageSize == 4096 ? 4 : 1
        let handOff = AttachingProcess.handOff(
            pageSize: refused.pageSize,
            inFiles: [
                (
                    address: 4 << 20, byteCount: pageCount * UInt64(refused.pageSize), file: refused.file,
                    offset: refused.offset
                )
            ]
        )
        let number = try Python.run(
            "import fcntl; d = array.array('i', [\(refused.descriptors)]); s.connect('\(site.path)'); "
                + "s.sendmsg([bytes(\(handOff))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, d)]); s.recv(1)"
        )
        let line = try #require(site.log.first(containing: "refused process \(number) "))
        #expect(line.contains(refused.reason), "\(line)")
        #expect(!line.contains("\n"))
        _ = try site.attach()
    }
}
