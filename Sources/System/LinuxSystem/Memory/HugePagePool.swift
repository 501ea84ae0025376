import Outside

/// The kernel's pool of 2 MiB huge pages (hugetlb), in which a mapping reserves its pages when it is created.
package enum HugePagePool {
    /// Bytes in a page of the pool.
    package static let pageSize = 2 << 20

    /// Pages that a new mapping can reserve: free ones that no mapping has reserved, and those that the kernel may add
    /// by itself (nr_overcommit_hugepages).
    package static var available: Int {
        let added = max(0, count("nr_overcommit_hugepages") - count("surplus_hugepages"))
        return max(0, count("free_hugepages") - count("resv_hugepages")) + added
    }

    /// Why a new mapping does not fit into the pool, and how to enlarge the pool; nil if it fits.
    package static func shortage(for pageCount: Int) -> String? {
        let available = available
        guard available < pageCount else { return nil }
        return "\(available) are free; \(remedy(adding: pageCount - available))"
    }

    /// The command that adds pages to the pool.
    package static func remedy(adding pageCount: Int) -> String {
        "add some: sysctl vm.nr_hugepages=\(count("nr_hugepages") + pageCount)"
    }

    /// The number of pages in the pool, used or free.
    package static var total: Int { count("nr_hugepages") }

    private static func count(_ name: String) -> Int {
        let text = ProcessFile.text("/sys/kernel/mm/hugepages/hugepages-2048kB/\(name)")
        return Untrusted(text.flatMap { Int($0.filter(\.isNumber)) } ?? 0).clamped(to: 0...(1 << 40))
    }
}
