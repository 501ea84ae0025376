import CShims
import Glibc
import SystemPackage

/// Minor faults: accesses to pages that are in a memory file but not mapped.
extension Userfaultfd {
    /// Registers a range of shared memory for missing pages and for minor faults.
    ///
    /// The range belongs to the process that opened the userfaultfd. Faults on pages that the memory file lacks become
    /// events, and so do faults on pages that are in the file but not mapped. A range may be registered again.
    package func registerMinor(_ range: PageRange) throws(SystemError) {
        var request = uffdio_register(
            range: uffdio_range(start: range.address, len: range.byteCount),
            mode: UInt64(1) << 0 | UInt64(1) << 2,  // _MODE_MISSING and _MODE_MINOR, cast macros that are not imported
            ioctls: 0
        )
        _ = try attempt(
            "register \(range.byteCount) bytes of memory for minor faults",
            advice: "the region must be a shared mapping of its memory file"
        ) { () throws(Errno) in
            try kernel(.uffdioRegister) { shim_uffdio_register(descriptor.raw, &request) }
        }
    }

    /// Maps pages that the memory file behind a registered range holds, and wakes the threads that wait for them
    /// (UFFDIO_CONTINUE).
    ///
    /// The result is ``Placement/present`` if the first page is mapped already, and ``Placement/failed(_:)`` with
    /// `Errno.isMemoryGone` if the file lacks it.
    @inline(__always)
    package func map(_ address: UInt64, byteCount: Int) -> Placement {
        var request = uffdio_continue()
        request.range = uffdio_range(start: address, len: UInt64(byteCount))
        do throws(Errno) {
            _ = try kernel(.uffdioContinue, isForeign: true) { shim_uffdio_continue(descriptor.raw, &request) }
            return .placed(bytes: byteCount)
        } catch {
            return request.mapped > 0 ? .placed(bytes: Int(request.mapped)) : Placement(error)
        }
    }
}
