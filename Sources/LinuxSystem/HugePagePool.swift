import Outside

/// The kernel's pool of huge pages of 2 MiB (hugetlb): memory that is mapped out of it has its pages reserved.
public enum HugePagePool {
    /// Bytes in a page of the pool.
    public static let pageSize = 2 << 20

    /// Pages that a new mapping can have: those that are free and reserved by nobody, and those that the kernel may add
    /// by itself (nr_overcommit_hugepages).
    public static var available: Int {
        let added = max(0, count("nr_overcommit_hugepages") - count("surplus_hugepages"))
        return max(0, count("free_hugepages") - count("resv_hugepages")) + added
    }

    /// What is missing for a new mapping, and how to mend it; nil where it fits.
    public static func shortage(for pageCount: Int) -> String? {
        let available = available
        guard available < pageCount else { return nil }
        let needed = count("nr_hugepages") + pageCount - available
        return "\(available) are free; add some: sysctl vm.nr_hugepages=\(needed)"
    }

    private static func count(_ name: String) -> Int {
        let text = ProcessFile.text("/sys/kernel/mm/hugepages/hugepages-2048kB/\(name)")
        return Untrusted(text.flatMap { Int($0.filter(\.isNumber)) } ?? 0).clamped(to: 0...(1 << 40))
    }
}
