import Glibc
import SystemPackage

/// A file descriptor that closes itself. Always close-on-exec.
struct OwnedDescriptor: ~Copyable, Sendable {
    let raw: CInt

    init(_ raw: CInt) {
        self.raw = raw
    }

    deinit {
        // The result is of no use: Linux frees the descriptor whatever close answers.
        _ = close(raw)
    }

    /// Hands the descriptor over to code that closes it.
    consuming func relinquish() -> CInt {
        let raw = self.raw
        discard self
        return raw
    }
}
