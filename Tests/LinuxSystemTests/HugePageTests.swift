import Glibc
import HugePages
import OwnThread
import SystemPackage
import Testing

@testable import LinuxSystem

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HugePageTests {
    private static let size = HugePagePool.pageSize

    @Test func `a huge page is placed as a whole, and counts as present`() throws {
        try HugePages.with(free: 4) {
            let content = try MemoryRegion(name: "content", pageSize: Self.size, pageCount: 1)
            content.base.initializeMemory(as: UInt8.self, repeating: 7, count: Self.size)
            let region = try MemoryRegion(name: "huge", pageSize: Self.size, pageCount: 3)
            #expect(UInt(bitPattern: region.base) % UInt(Self.size) == 0)
            let userfaultfd = try Userfaultfd()
            try userfaultfd.register(region.range)
            defer { try? userfaultfd.unregister(region.range) }
            let address = region.range.address(ofPage: 1)
            #expect(!MemoryRegion.isPresent(region.page(1)))
            #expect(userfaultfd.zero(address, byteCount: Self.size) == .failed(.invalidArgument))
            #expect(
                userfaultfd.copy(to: address, from: content.base, byteCount: Self.size) == .placed(bytes: Self.size)
            )
            #expect(MemoryRegion.isPresent(region.page(1)))
            #expect(!MemoryRegion.isPresent(region.page(0)) && !MemoryRegion.isPresent(region.page(2)))
            #expect(region.page(2).load(fromByteOffset: -1, as: UInt8.self) == 7)
        }
    }

    @Test func `huge pages are reserved, and a request for more than are free is refused with advice`() throws {
        try HugePages.with(free: 4) {
            let error = try #require(throws: SystemError.self) {
                _ = try MemoryRegion(name: "huge", pageSize: Self.size, pageCount: 5)
            }
            #expect(
                error.description.hasPrefix(
                    "cannot map 5 huge pages of 2 MiB: Cannot allocate memory; 4 are free; add some: "
                        + "sysctl vm.nr_hugepages="
                )
            )
            do {
                let mapping = try Mapping(hugePages: 3)
                #expect(HugePagePool.available == 1)
                #expect(HugePagePool.shortage(for: 1) == nil)
                #expect(HugePagePool.shortage(for: 2)?.hasPrefix("1 are free; ") == true)
                #expect(mapping.byteCount == 3 * Self.size)
            }
            #expect(HugePagePool.available == 4)
        }
    }

    private static let needsTransparentHugePages: ConditionTrait = .enabled(
        "transparent huge pages are off",
        { TransparentHugePages.areEnabled }
    )

    /// Memory of this many bytes in which every page holds its own number, except one part that was never touched.
    private static func filled(_ byteCount: Int) throws -> MemoryRegion {
        let region = try MemoryRegion(name: "filled", pageCount: byteCount / 4096)
        let piece = Int(bitPattern: region.base) / size + 2
        for page in 0..<region.pageCount where Int(bitPattern: region.page(page)) / size != piece {
            region.page(page).storeBytes(of: page, as: Int.self)
        }
        return region
    }

    /// Bytes of the memory that are in transparent huge pages.
    private static func hugeBytes(of region: MemoryRegion) -> Int {
        let begin = String(UInt(bitPattern: region.base), radix: 16)
        let lines = (ProcessFile.text("/proc/self/smaps") ?? "").split(separator: "\n")
        let mapping = lines.drop { !$0.hasPrefix(begin) }
        let line = mapping.first { $0.hasPrefix("AnonHugePages:") } ?? ""
        return (Int(line.filter(\.isNumber)) ?? 0) << 10
    }

    @Test(needsTransparentHugePages)
    func `memory of small pages is collapsed into huge pages, and keeps its content`() throws {
        let region = try Self.filled(17 << 20)
        #expect(Self.hugeBytes(of: region) == 0)
        let collapsing = try TransparentHugePages(for: [region]) { Issue.record($0) }
        // Count whole aligned pieces, without the one that was never touched.
        let whole =
            (Int(bitPattern: region.base) + region.byteCount) / Self.size
            - (Int(bitPattern: region.base) + Self.size - 1) / Self.size
        // The kernel leaves a piece as it is when it has no huge page free for it.
        let expected = (whole - 1) * Self.size / 2
        let deadline = MonotonicClock.now() + 30_000_000_000
        while Self.hugeBytes(of: region) < expected, MonotonicClock.now() < deadline { usleep(10_000) }
        #expect(Self.hugeBytes(of: region) >= expected)
        withExtendedLifetime(collapsing) {}
        let piece = Int(bitPattern: region.base) / Self.size + 2
        for page in 0..<region.pageCount {
            let isUntouched = Int(bitPattern: region.page(page)) / Self.size == piece
            #expect(region.page(page).load(as: Int.self) == (isUntouched ? 0 : page))
        }
    }

    @Test(needsTransparentHugePages)
    func `dropping the object stops the work before it is complete`() throws {
        let region = try Self.filled(256 << 20)
        do { _ = try TransparentHugePages(for: [region]) { Issue.record($0) } }
        #expect(Self.hugeBytes(of: region) < region.byteCount / 2)
    }
}
