import Testing

@testable import LinuxSystem

@Suite
struct ProcessMappingsTests {
    /// The lines of a mapping that count here, at 4 MiB up to 12 MiB: four huge pages.
    private static func smaps(_ flags: String, mode: String = "rw-p", presentKiB: Int = 0, page: Int = 2048) -> String {
        """
        00400000-00c00000 \(mode) 00000000 00:11 203873                     /anon_hugepage (deleted)
        KernelPageSize:     \(page) kB
        Shared_Hugetlb:        0 kB
        Private_Hugetlb:    \(presentKiB) kB
        VmFlags: rd wr mr mw me um de \(flags)
        """
    }

    private static let all = PageRange(address: 4 << 20, pageSize: 2 << 20, pageCount: 4)
    private static let half = PageRange(address: 8 << 20, pageSize: 2 << 20, pageCount: 4)

    @Test(arguments: [
        (smaps("nr ht"), all, 4), (smaps("nr ht", presentKiB: 2048), all, 3), (smaps("nr ht"), half, 2),
        // Pages that are present may be those outside of the range.
        (smaps("nr ht", presentKiB: 4096), half, 0), (smaps("nr ht", presentKiB: 8192), all, 0),
        (smaps("ht"), all, 0), (smaps("nr ht", mode: "rw-s"), all, 0), (smaps("nr", page: 4), all, 0), ("", all, 0),
    ])
    func `only private huge pages without a reservation are lacking`(text: String, range: PageRange, count: Int) {
        #expect(ProcessMappings(smaps: text).unreservedHugePages(in: [range]) == count)
    }
}
