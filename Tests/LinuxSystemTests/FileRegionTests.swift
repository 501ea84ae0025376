import Glibc
import LinuxSystem
import OwnThread
import SystemPackage
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FileRegionTests {
    /// A memory file of 10 pages, and its pages 2 to 9 as a region.
    private final class Held: Sendable {
        let file: MemoryFile
        let region: SourceRegion

        init() throws {
            file = try MemoryFile(name: "held", byteCount: 10 * 4096)
            try file.write((0..<10).flatMap { [UInt8](repeating: $0 + 1, count: 4096) })
            region = .ofFile(
                try FileRegion(of: file, from: 2 * 4096, like: PageRange(address: 0, pageSize: 4096, pageCount: 8))
            )
        }

        func status() throws -> stat {
            var status = stat()
            guard stat(file.path, &status) == 0 else { throw Errno(rawValue: errno) }
            return status
        }

        func shrink(to byteCount: Int) { #expect(truncate(file.path, byteCount) == 0) }
    }

    private func start(of page: Int, _ region: SourceRegion) throws(SystemError) -> UInt8 {
        try region.withStart(ofPage: page, byteCount: 8) { $0[7] }
    }

    @Test func `pages are read up to the end of a file that was shrunk`() throws {
        let held = try Held()
        held.shrink(to: 5 * 4096 + 100)
        let buffer = try Mapping(anonymousBytes: 8 * 4096)
        #expect(try held.region.copy(0..<8, to: buffer.base) == 3)
        #expect((0..<3).map { buffer.base.load(fromByteOffset: $0 * 4096 + 4095, as: UInt8.self) } == [3, 4, 5])
        let error = try #require(throws: SystemError.self) { _ = try held.region.copy(3..<8, to: buffer.base) }
        #expect(
            error.description
                == "cannot read 20480 bytes at byte 20480 of a memory file of another process: No data available; "
                + "the file was shrunk"
        )
    }

    @Test func `the start of a page that a file has lost is an error, and not a signal`() throws {
        let held = try Held()
        #expect(try start(of: 7, held.region) == 10)
        held.shrink(to: 9 * 4096)
        #expect(try start(of: 6, held.region) == 9)
        #expect(throws: SystemError.self) { try start(of: 7, held.region) }
    }

    @Test func `a hole reads as zeros, and stays a hole`() throws {
        let held = try Held()
        held.shrink(to: 0)
        held.shrink(to: 10 * 4096)
        #expect(try start(of: 3, held.region) == 0)
        #expect(try held.status().st_blocks == 0)
    }

    @Test func `memory that is given back leaves the rest of the file as it was`() throws {
        let held = try Held()
        try held.region.discard(1..<8)
        #expect(try start(of: 0, held.region) == 3 && start(of: 1, held.region) == 0)
        #expect(try held.status().st_blocks == 3 * 8)
        #expect(try held.status().st_size == 10 * 4096)
    }

    @Test func `a file that holds fewer pages is refused`() throws {
        let held = try Held()
        #expect(throws: HandedDescriptorError.self) {
            _ = try FileRegion(
                of: held.file,
                from: 4096,
                like: PageRange(address: 0, pageSize: 4096, pageCount: 10)
            )
        }
    }

    #if DEBUG
    @Test func `bytes that may have been cleared while the file was shrunk are not returned`() throws {
        let held = try Held()
        let buffer = try Mapping(anonymousBytes: 8 * 4096)
        // The file is shrunk after the bytes were read.
        let count = try ForcedErrno.asking({ call in
            if call == .fstat { held.shrink(to: 4 * 4096) }
            return nil
        }) { try held.region.copy(0..<8, to: buffer.base) }
        #expect(count == 2)
    }

    @Test func `calls that fail name the file and the reason`() throws {
        let held = try Held()
        let read = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.pread: [.ioError]]) { _ = try start(of: 0, held.region) }
        }
        #expect(
            read.description
                == "cannot read 8 bytes at byte 8192 of a memory file of another process: Input/output error"
        )
        let free = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.fallocate: [.notPermitted]]) { try held.region.discard(0..<2) }
        }
        #expect(free.description.hasPrefix("cannot return 8192 bytes of a memory file to the kernel: "))
        let copy = try #require(throws: HandedDescriptorError.self) {
            try ForcedErrno.with([.fcntl: [.tooManyOpenFiles]]) {
                _ = try FileRegion(of: held.file, like: PageRange(address: 0, pageSize: 4096, pageCount: 1))
            }
        }
        #expect(copy.reason.hasSuffix("raise `ulimit -n`"))
    }
    #endif
}
