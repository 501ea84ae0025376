import CShims
import Glibc
import SystemPackage

/// Minor faults: pages that are in a memory file and not mapped.
extension Userfaultfd {
    /// Registers a range of shared memory, of whichever process has opened the userfaultfd: faults on pages that its file
    /// lacks become events, and faults on pages that are in the file and not mapped. A range that is registered already
    /// may be registered again.
    public func registerMinor(_ range: PageRange) throws(SystemError) {
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

    /// Maps pages that are in the memory file behind a registered range, and wakes who waits for them (UFFDIO_CONTINUE).
    ///
    /// ``Placement/present`` says that the first page is mapped already, ``Placement/failed(_:)`` with
    /// ``SystemPackage/Errno/isMemoryGone`` that the file lacks it.
    @inline(__always)
    public func map(_ address: UInt64, byteCount: Int) -> Placement {
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
