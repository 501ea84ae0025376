import CShims
import Glibc
package import SystemPackage

/// A userfaultfd: page faults in registered memory become events here, and the threads wait until a page is placed.
///
/// Any thread may make any call. When the last copy of the descriptor is closed, the kernel unregisters the memory, and
/// its missing pages read as zeros.
package struct Userfaultfd: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Opens a userfaultfd that also catches faults raised inside the kernel, and enables its features.
    ///
    /// The device `/dev/userfaultfd` is tried first. If it cannot be opened, the system call is made.
    ///
    /// - Parameters:
    ///   - features: the features that the kernel must have.
    ///   - wished: features to enable if the kernel has them.
    ///   - isBlocking: whether ``read(into:)`` waits for an event. ``wait(or:)`` cannot wait for a blocking
    ///     userfaultfd: poll(2) reports an error for it.
    /// - Throws: a ``SystemError`` that says which permission or feature is missing.
    package init(features: Features = [], wished: Features = [], isBlocking: Bool = false) throws(SystemError) {
        let granted = wished.isEmpty ? [] : try Userfaultfd.kernelFeatures().intersection(wished)
        let descriptor = try Userfaultfd.open(isBlocking: isBlocking)
        _ = try Userfaultfd.negotiate(descriptor, features.union(granted))
        self.descriptor = descriptor
    }

    init(adopting descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// Makes ``read(into:)`` return without waiting from now on.
    ///
    /// - Returns: whether the kernel has made the descriptor non-blocking.
    package func makeNonBlocking() -> Bool { shim_set_nonblocking(descriptor.raw) >= 0 }

    /// Opens another descriptor of the same userfaultfd; its memory stays registered as long as one descriptor is open.
    package func duplicate() throws(SystemError) -> Userfaultfd {
        try attempt("duplicate a userfaultfd", advice: "raise `ulimit -n`") { () throws(Errno) in
            Userfaultfd(adopting: try descriptor.duplicate())
        }
    }

    /// Asks the kernel for all its features, on a temporary descriptor, since UFFDIO_API works only once on each.
    package static func kernelFeatures() throws(SystemError) -> Features {
        try negotiate(open(isBlocking: false), [])
    }

    private static func open(isBlocking: Bool) throws(SystemError) -> OwnedDescriptor {
        let flags = O_CLOEXEC | (isBlocking ? 0 : O_NONBLOCK)
        let advice: String
        switch Result(catching: { () throws(Errno) in
            try kernel(.open) { shim_open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) }
        }) {
        case .success(let device):
            let device = OwnedDescriptor(device)
            return try attempt("make a userfaultfd from /dev/userfaultfd") { () throws(Errno) in
                OwnedDescriptor(try kernel(.userfaultfd) { shim_userfaultfd_from_device(device.raw, flags) })
            }
        case .failure(.tooManyOpenFiles):
            throw SystemError("open /dev/userfaultfd", .tooManyOpenFiles, advice: "raise `ulimit -n`")
        case .failure(.noSuchFileOrDirectory):
            advice = "/dev/userfaultfd does not exist: run as root, or: sysctl -w vm.unprivileged_userfaultfd=1"
        case .failure(.permissionDenied), .failure(.notPermitted):
            advice = "run as root, or as a user with access: setfacl -m u:$USER:rw /dev/userfaultfd"
        case .failure(let errno):
            advice =
                "/dev/userfaultfd cannot be opened: \(errno); run as root, or: sysctl -w vm.unprivileged_userfaultfd=1"
        }
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

    /// Registers a range of this process, so that faults on its missing pages become events.
    package func register(_ range: PageRange) throws(SystemError) {
        var request = uffdio_register(
            range: uffdio_range(start: range.address, len: range.byteCount),
            mode: UInt64(1) << 0,  // UFFDIO_REGISTER_MODE_MISSING, a cast macro that is not imported
            ioctls: 0
        )
        _ = try attempt("register \(range.byteCount) bytes of memory with a userfaultfd") { () throws(Errno) in
            try kernel(.uffdioRegister) { shim_uffdio_register(descriptor.raw, &request) }
        }
    }

    /// Unregisters a range: its missing pages read as zeros from now on.
    package func unregister(_ range: PageRange) throws(SystemError) {
        var request = uffdio_range(start: range.address, len: range.byteCount)
        _ = try attempt("unregister \(range.byteCount) bytes of memory from a userfaultfd") { () throws(Errno) in
            try kernel(.uffdioUnregister) { shim_uffdio_unregister(descriptor.raw, &request) }
        }
    }

    /// The most calls that ``unregisterParts(of:)`` makes.
    private static let mostParts = 1 << 20

    /// Unregisters what is still registered of a range, in which the process may have unmapped or mapped something since.
    ///
    /// The kernel refuses a range as a whole if a part of it is not mapped, is mapped from a file, or, from Linux 6.17 on,
    /// is registered with another userfaultfd. Such a part is found by halving. An older kernel unregisters memory of
    /// another userfaultfd as well.
    ///
    /// - Returns: whether no page of the range is registered with this userfaultfd any more; false also if that would
    ///   take too long to find out.
    package func unregisterParts(of range: PageRange) -> Bool {
        var parts = [range]
        for _ in 0..<Userfaultfd.mostParts {
            guard let part = parts.popLast() else { return true }
            do throws(SystemError) {
                try unregister(part)
            } catch {
                guard error.errno == .invalidArgument else { return false }
                // A single page that the kernel refuses is not registered here.
                let half = part.pageCount / 2
                guard half > 0 else { continue }
                let middle = part.address + UInt64(half * part.pageSize)
                parts.append(PageRange(address: part.address, pageSize: part.pageSize, pageCount: half))
                parts.append(
                    PageRange(address: middle, pageSize: part.pageSize, pageCount: part.pageCount - half)
                )
            }
        }
        return parts.isEmpty
    }

    /// The outcome of placing pages.
    package enum Placement: Hashable, Sendable {
        /// This many bytes from the beginning of the range were placed, and the threads that wait for them were woken.
        ///
        /// The kernel may stop partway, with fewer bytes than asked for; the rest may be tried again.
        case placed(bytes: Int)
        /// The first page of the range is present already (EEXIST), and nothing was written.
        case present
        /// Events are waiting to be read, or the mapping is changing (EAGAIN): read the events, then try again.
        case again
        /// The range is not mapped, is not registered, or spans several mappings (ENOENT).
        ///
        /// For a single page: the page is gone, but its process is there.
        case unmapped
        /// The process whose memory was registered is gone (ESRCH).
        case gone
        /// The host has no memory or huge page left (ENOMEM, ENOSPC).
        case noMemory
        /// Any other error, which a registered range should not cause.
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

    /// Copies pages into a registered range, atomically for each page, and wakes the threads that wait for them.
    ///
    /// - Parameters:
    ///   - address: the address of the first page, aligned to its size.
    ///   - source: the bytes to copy, at any alignment.
    ///   - byteCount: bytes of whole pages.
    @inline(__always)
    package func copy(to address: UInt64, from source: UnsafeRawPointer, byteCount: Int) -> Placement {
        var request = uffdio_copy()
        request.dst = address
        request.src = UInt64(UInt(bitPattern: source))
        request.len = UInt64(byteCount)
        do throws(Errno) {
            // EFAULT also comes from memory after the end of its file, which its process may have truncated.
            _ = try kernel(.uffdioCopy, isForeign: true) { shim_uffdio_copy(descriptor.raw, &request) }
            return .placed(bytes: byteCount)
        } catch {
            return request.copy > 0 ? .placed(bytes: Int(request.copy)) : Placement(error)
        }
    }

    /// Places zero pages in a registered range of anonymous memory, and wakes the threads that wait for them.
    @inline(__always)
    package func zero(_ address: UInt64, byteCount: Int) -> Placement {
        var request = uffdio_zeropage()
        request.range = uffdio_range(start: address, len: UInt64(byteCount))
        do throws(Errno) {
            _ = try kernel(.uffdioZeropage, isForeign: true) { shim_uffdio_zeropage(descriptor.raw, &request) }
            return .placed(bytes: byteCount)
        } catch {
            return request.zeropage > 0 ? .placed(bytes: Int(request.zeropage)) : Placement(error)
        }
    }

    /// Wakes threads that wait for pages of a range; each faults again if its page is still missing.
    ///
    /// A range that is gone has no waiters, so a failure to wake it is ignored.
    @inline(__always)
    package func wake(_ address: UInt64, byteCount: Int) {
        var request = uffdio_range(start: address, len: UInt64(byteCount))
        // The call fails only for a range that is gone.
        _ = try? kernel(.uffdioWake) { shim_uffdio_wake(descriptor.raw, &request) }
    }
}
