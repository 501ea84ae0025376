import Glibc
import SystemPackage

/// A file descriptor that closes itself.
///
/// Every descriptor is close-on-exec.
struct OwnedDescriptor: ~Copyable, Sendable {
    let raw: CInt

    init(_ raw: CInt) {
        self.raw = raw
    }

    deinit {
        // Linux frees the descriptor whatever close(2) returns.
        _ = close(raw)
    }

    /// Opens another descriptor of the same file.
    func duplicate() throws(Errno) -> OwnedDescriptor {
        let raw = raw
        return OwnedDescriptor(try kernel(.fcntl) { orErrno(fcntl(raw, F_DUPFD_CLOEXEC, 0)) })
    }

    /// Hands the descriptor over to code that will close it.
    consuming func relinquish() -> CInt {
        let raw = self.raw
        discard self
        return raw
    }
}
