import CShims
import Glibc
import SystemPackage

/// The page table of a process, which tells whether pages are present (/proc/PID/pagemap).
package final class PageTable: Sendable {
    private let descriptor: OwnedDescriptor
    private let process: Int32

    /// Opens the page table of this process.
    package convenience init() throws(SystemError) {
        try self.init(of: getpid())
    }

    /// Opens the page table of a process, which the kernel allows to those who may trace the process.
    package init(of process: Int32) throws(SystemError) {
        self.process = process
        descriptor = try attempt(
            "open the page table of process \(process)",
            advice: "run as the same user or as root"
        ) { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open("/proc/\(process)/pagemap", O_RDONLY | O_CLOEXEC) })
        }
    }

    /// Entries read at once: those of 256 MiB of address space.
    private static let batch = 1 << 16

    /// The first page of a range that is in memory or swapped out; nil if none is.
    package func firstPresent(in range: PageRange) throws(SystemError) -> Int? {
        let entries = UnsafeMutableBufferPointer<UInt64>.allocate(capacity: PageTable.batch)
        defer { entries.deallocate() }
        let raw = descriptor.raw
        let total = Int(range.byteCount / 4096)
        var done = 0
        while done < total {
            let wanted = min(PageTable.batch, total - done)
            let count = try attempt("read the page table of process \(process)") { () throws(Errno) in
                try kernel(.pread) {
                    orErrno(
                        pread(raw, entries.baseAddress, wanted * 8, off_t((range.address / 4096 + UInt64(done)) * 8))
                    )
                }
            }
            // After the end of the address space there are no entries.
            guard count >= 8 else { return nil }
            let read = count / 8
            if let index = entries[..<read].firstIndex(where: { $0 >> 62 != 0 }) {
                return (done + index) * 4096 / range.pageSize
            }
            done += read
        }
        return nil
    }

    /// Whether the page that holds an address is in memory or swapped out.
    package func isPresent(_ address: UInt64) throws(SystemError) -> Bool {
        var entry: UInt64 = 0
        let raw = descriptor.raw
        let count = try attempt("read the page table of process \(process)") { () throws(Errno) in
            // pagemap has an entry of 8 bytes for each 4096 bytes of address space, whatever the page size.
            try kernel(.pread) { orErrno(pread(raw, &entry, 8, off_t(address / 4096 * 8))) }
        }
        // The two highest bits mean: present in memory, swapped out.
        return count == 8 && entry >> 62 != 0
    }
}
