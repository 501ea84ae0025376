import Glibc
import LinuxSystem
import Testing

/// The kernel's pool of huge pages, which one test on this host may use at a time.
package enum HugePages {
    private static let setting = "/proc/sys/vm/nr_hugepages"

    /// Runs `body` while exactly `count` huge pages are free, and then restores the pool.
    ///
    /// If the host cannot provide so many pages, the test is skipped.
    package static func with(free count: Int, _ body: () throws -> Void) throws {
        let lock = open("/tmp/pageferry-huge-pages.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        defer { close(lock) }
        guard lock >= 0, flock(lock, LOCK_EX) == 0 else { try Test.cancel("the lock of the huge pages cannot be had") }
        let others = HugePagePool.available
        let aside =
            others > 0 ? try MemoryRegion(name: "aside", pageSize: HugePagePool.pageSize, pageCount: others) : nil
        let before = total
        set(before + count)
        let added = total - before
        defer { set(max(0, total - added)) }
        guard HugePagePool.available == count else {
            try Test.cancel("needs \(count) huge pages of 2 MiB: run as root, with so much memory free")
        }
        try withExtendedLifetime(aside) { try body() }
    }

    private static var total: Int { Int(ProcessFile.text(setting)?.filter(\.isNumber) ?? "") ?? 0 }

    private static func set(_ total: Int) {
        let file = open(setting, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return }
        defer { close(file) }
        let text = Array("\(total)\n".utf8)
        _ = write(file, text, text.count)
    }
}
