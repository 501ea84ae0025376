import CShims
import Glibc
public import SystemPackage

/// A userfaultfd: page faults in registered memory become events here, and wait until a page is placed.
///
/// All calls may be made from any thread. When the last copy of the descriptor is closed, the kernel unregisters the
/// memory and its missing pages read as zeros.
public struct Userfaultfd: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Opens a userfaultfd that also catches faults raised inside the kernel, negotiated.
    ///
    /// The device `/dev/userfaultfd` is tried first, the system call second.
    ///
    /// - Parameters:
    ///   - features: what it must do.
    ///   - wished: what it does where the kernel can.
    ///   - isBlocking: whether ``read(into:)`` waits for an event. One that blocks cannot be waited for by ``wait(or:)``:
    ///     poll(2) then reports an error.
    /// - Throws: a ``SystemError`` that says which permission or feature is missing.
    public init(features: Features = [], wished: Features = [], isBlocking: Bool = false) throws(SystemError) {
        let granted = wished.isEmpty ? [] : try Userfaultfd.kernelFeatures().intersection(wished)
        let descriptor = try Userfaultfd.open(isBlocking: isBlocking)
        _ = try Userfaultfd.negotiate(descriptor, features.union(granted))
        self.descriptor = descriptor
    }

    init(adopting descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// From now on ``read(into:)`` does not wait.
    ///
    /// - Returns: whether the kernel has done so.
    package func makeNonBlocking() -> Bool { shim_set_nonblocking(descriptor.raw) >= 0 }

    /// Another descriptor of the same userfaultfd: the kernel serves its faults as long as one of them is open.
    public func duplicate() throws(SystemError) -> Userfaultfd {
        let raw = descriptor.raw
        return try attempt("duplicate a userfaultfd", advice: "raise `ulimit -n`") { () throws(Errno) in
            Userfaultfd(adopting: OwnedDescriptor(try kernel(.fcntl) { orErrno(fcntl(raw, F_DUPFD_CLOEXEC, 0)) }))
        }
    }

    /// Every feature of the running kernel, asked with a throw-away descriptor: UFFDIO_API works once on each.
    public static func kernelFeatures() throws(SystemError) -> Features {
        try negotiate(open(isBlocking: false), [])
    }

    private static func open(isBlocking: Bool) throws(SystemError) -> OwnedDescriptor {
        let flags = O_CLOEXEC | (isBlocking ? 0 : O_NONBLOCK)
        if let device = try? kernel(.open, { shim_open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) }) {
            let device = OwnedDescriptor(device)
            return try attempt("make a userfaultfd from /dev/userfaultfd") { () throws(Errno) in
                OwnedDescriptor(try kernel(.userfaultfd) { shim_userfaultfd_from_device(device.raw, flags) })
            }
        }
        let advice = "run as root, or as a user with access: setfacl -m u:$USER:rw /dev/userfaultfd"
        return try attempt("open a userfaultfd", advice: advice) { () throws(Errno) in
            OwnedDescriptor(try kernel(.userfaultfd) { shim_userfaultfd(flags) })
        }
    }

    private static func negotiate(
        _ descriptor: borrowing OwnedDescriptor,
        _ features: Features
    ) throws(SystemError) -> Features {
        var api = uffdio_api(api: UInt64(UFFD_API), features: features.rawValue, ioctls: 0)
        let raw = descriptor.raw
        _ = try attempt(
            "get the userfaultfd features \(features)",
            advice: "run Linux 6.1 or later; `pageferry probe` lists what this kernel has"
        ) { () throws(Errno) in
            try kernel(.uffdioAPI) { shim_uffdio_api(raw, &api) }
        }
        return Features(rawValue: api.features)
    }

    /// Registers a range of this process: faults on its missing pages become events.
    public func register(_ range: PageRange) throws(SystemError) {
        var request = uffdio_register(
            range: uffdio_range(start: range.address, len: range.byteCount),
            mode: UInt64(1) << 0,  // UFFDIO_REGISTER_MODE_MISSING, a cast macro that is not imported
            ioctls: 0
        )
        _ = try attempt("register \(range.byteCount) bytes of memory with a userfaultfd") { () throws(Errno) in
            try kernel(.uffdioRegister) { shim_uffdio_register(descriptor.raw, &request) }
        }
    }

    /// Gives a range back to the kernel: its missing pages read as zeros from now on.
    public func unregister(_ range: PageRange) throws(SystemError) {
        var request = uffdio_range(start: range.address, len: range.byteCount)
        _ = try attempt("unregister \(range.byteCount) bytes of memory from a userfaultfd") { () throws(Errno) in
            try kernel(.uffdioUnregister) { shim_uffdio_unregister(descriptor.raw, &request) }
        }
    }

    /// What placing pages came to.
    public enum Placement: Hashable, Sendable {
        /// This many bytes, from the beginning of the range, were placed and their waiters woken. Less than asked
        /// when the kernel stopped half way; the rest may be tried again.
        case placed(bytes: Int)
        /// The first page of the range is there already (EEXIST). Nothing was written.
        case present
        /// Events are waiting to be read, or the mapping is changing (EAGAIN): read them, then try again.
        case again
        /// The range is not mapped and registered, or lies in several mappings (ENOENT). Of a single page: the page is
        /// gone, and its process is there.
        case unmapped
        /// The process whose memory it was is gone (ESRCH).
        case gone
        /// No memory is left (ENOMEM, ENOSPC).
        case noMemory
        /// Something that should not happen to a range that is registered.
        case failed(Errno)

        init(_ errno: Errno) {
            self =
                switch errno {
                case .fileExists: .present
                case .resourceTemporarilyUnavailable: .again
                case .noSuchFileOrDirectory: .unmapped
                case .noSuchProcess: .gone
                case .noMemory, .noSpace: .noMemory
                default: .failed(errno)
                }
        }
    }

    /// Copies pages into a registered range, atomically for each page, and wakes who waits for them.
    ///
    /// - Parameters:
    ///   - address: where the first page goes; aligned to its size.
    ///   - source: bytes to copy, of any alignment.
    ///   - byteCount: whole pages.
    @inline(__always)
    public func copy(to address: UInt64, from source: UnsafeRawPointer, byteCount: Int) -> Placement {
        var request = uffdio_copy()
        request.dst = address
        request.src = UInt64(UInt(bitPattern: source))
        request.len = UInt64(byteCount)
        do throws(Errno) {
            // EFAULT is said of memory behind the end of its file, which its process may have truncated.
            _ = try kernel(.uffdioCopy, isForeign: true) { shim_uffdio_copy(descriptor.raw, &request) }
            return .placed(bytes: byteCount)
        } catch {
            return request.copy > 0 ? .placed(bytes: Int(request.copy)) : Placement(error)
        }
    }

    /// Places zero pages in a registered range of anonymous memory and wakes who waits for them.
    @inline(__always)
    public func zero(_ address: UInt64, byteCount: Int) -> Placement {
        var request = uffdio_zeropage()
        request.range = uffdio_range(start: address, len: UInt64(byteCount))
        do throws(Errno) {
            _ = try kernel(.uffdioZeropage, isForeign: true) { shim_uffdio_zeropage(descriptor.raw, &request) }
            return .placed(bytes: byteCount)
        } catch {
            return request.zeropage > 0 ? .placed(bytes: Int(request.zeropage)) : Placement(error)
        }
    }

    /// Wakes threads that wait for pages of a range; each faults anew if its page is still missing.
    ///
    /// A range that is gone has no waiters left, so that is no failure.
    @inline(__always)
    public func wake(_ address: UInt64, byteCount: Int) {
        var request = uffdio_range(start: address, len: UInt64(byteCount))
        _ = try? kernel(.uffdioWake) { shim_uffdio_wake(descriptor.raw, &request) }
    }
}
