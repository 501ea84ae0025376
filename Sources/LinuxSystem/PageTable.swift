import CShims
import Glibc
import SystemPackage

/// The page table of a process, of which can be asked whether a page is there (/proc/PID/pagemap).
public final class PageTable: Sendable {
    private let descriptor: OwnedDescriptor
    private let process: Int32

    /// Opens that of a process, which the kernel allows to who may trace it.
    public init(of process: Int32) throws(SystemError) {
        self.process = process
        descriptor = try attempt(
            "open the page table of process \(process)",
            advice: "run as the same user or as root"
        ) { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open("/proc/\(process)/pagemap", O_RDONLY | O_CLOEXEC) })
        }
    }

    /// Whether the page that holds an address is there, in memory or swapped out.
    public func isPresent(_ address: UInt64) throws(SystemError) -> Bool {
        var entry: UInt64 = 0
        let raw = descriptor.raw
        let count = try attempt("read the page table of process \(process)") { () throws(Errno) in
            // An entry of 8 bytes for each 4096 bytes, whatever the size of the page.
            try kernel(.pread) { orErrno(pread(raw, &entry, 8, off_t(address / 4096 * 8))) }
        }
        // The two highest bits: present, swapped.
        return count == 8 && entry >> 62 != 0
    }
}
