import HugePages
import OwnThread
import SystemPackage
import Testing

@testable import LinuxSystem

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HugePageTests {
    private static let size = HugePagePool.pageSize

    @Test func `a huge page is placed as a whole, and is seen to be present`() throws {
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

    @Test func `huge pages are reserved, and more than are free are refused by a line that says what to do`() throws {
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
}
