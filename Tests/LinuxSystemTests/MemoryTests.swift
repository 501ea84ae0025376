import OwnThread
import SystemPackage
import Testing

@testable import LinuxSystem

@Suite(.ownThread)
struct MemoryTests {
    @Test func `new memory reads as zeros and keeps what is written`() throws {
        let mapping = try Mapping(anonymousBytes: 3 * 4096)
        #expect(ZeroScan.isZero(mapping.base, byteCount: mapping.byteCount))
        mapping.base.storeBytes(of: 42, toByteOffset: 2 * 4096 + 5, as: UInt8.self)
        #expect(mapping.base.load(fromByteOffset: 2 * 4096 + 5, as: UInt8.self) == 42)
        try mapping.advise(.dontNeed)
        #expect(ZeroScan.isZero(mapping.base, byteCount: mapping.byteCount))
    }

    @Test func `a mapping of zero bytes is refused`() throws {
        let error = try #require(throws: SystemError.self) { _ = try Mapping(anonymousBytes: 0) }
        #expect(error.errno == .invalidArgument)
    }

    @Test func `two mappings of one file share its bytes`() throws {
        let file = try MemoryFile(name: "shared", byteCount: 2 * 4096)
        let one = try Mapping(sharing: file)
        let other = try Mapping(sharing: file)
        one.base.storeBytes(of: 0x1234_5678, toByteOffset: 4096, as: UInt32.self)
        #expect(other.base.load(fromByteOffset: 4096, as: UInt32.self) == 0x1234_5678)
        #expect(one.base != other.base)
    }

    @Test func `a region knows where its pages are`() throws {
        let region = try MemoryRegion(name: "ram", pageCount: 10)
        #expect(region.byteCount == 40_960)
        #expect(region.page(3) - region.base == 3 * 4096)
        #expect(region.range.byteCount == 40_960)
        #expect(region.range.address(ofPage: 9) == UInt64(UInt(bitPattern: region.page(9))))
        #expect(UInt(bitPattern: region.base) % 4096 == 0)
    }

    @Test func `a page is present once it was touched`() throws {
        let region = try MemoryRegion(name: "ram", pageCount: 2)
        region.page(1).storeBytes(of: 1, as: UInt8.self)
        #expect(!MemoryRegion.isPresent(region.page(0)))
        #expect(MemoryRegion.isPresent(region.page(1)))
    }

    @Test func `a byte that is not zero is found at every place`() throws {
        let region = try MemoryRegion(name: "page", pageCount: 2)
        let page = region.page(0)
        #expect(ZeroScan.isZero(page, byteCount: 4096))
        var missed: [Int] = []
        for offset in 0..<4096 {
            page.storeBytes(of: offset % 2 == 0 ? 1 : 0x80, toByteOffset: offset, as: UInt8.self)
            if ZeroScan.isZero(page, byteCount: 4096) { missed.append(offset) }
            page.storeBytes(of: 0, toByteOffset: offset, as: UInt8.self)
        }
        #expect(missed == [])
    }

    @Test func `the byte after the page does not count`() throws {
        let region = try MemoryRegion(name: "page", pageCount: 2)
        region.page(1).storeBytes(of: 1, as: UInt8.self)
        #expect(ZeroScan.isZero(region.page(0), byteCount: 4096))
    }

    @Test func `the files of the kernel are read`() {
        #expect(ProcessFile.text("/proc/self/comm")?.isEmpty == false)
        #expect(ProcessFile.text("/proc/self/no-such-file") == nil)
        #expect((ProcessFile.availableMemory ?? 0) > 1 << 20)
    }

    @Test func `the available memory is read from the kernel's text`() {
        let text = "MemTotal:       24684168 kB\nMemFree:        23899468 kB\nMemAvailable:   24385432 kB\n"
        #expect(ProcessFile.availableMemory(in: text) == 24_385_432 << 10)
        #expect(ProcessFile.availableMemory(in: "MemTotal: 1 kB\n") == nil)
        #expect(ProcessFile.availableMemory(in: "MemAvailable: many kB\n") == nil)
    }
}
