import CShims
import Glibc
import Synchronization
import SystemPackage

/// A file, terminal or pipe to which bytes are appended.
package final class OutputFile: Sendable {
    private let descriptor: OwnedDescriptor
    private let path: String
    private let onFailure: @Sendable (SystemError) -> Void
    private let hasFailed = Atomic<Bool>(false)

    /// Opens a file, and creates it if it does not exist.
    ///
    /// A file that is created has mode 0644, less the umask. `onFailure` is called once, for the first byte that cannot
    /// be written.
    package init(path: String, onFailure: @escaping @Sendable (SystemError) -> Void) throws(SystemError) {
        self.path = path
        self.onFailure = onFailure
        let flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK
        descriptor = try attempt("write to \(path)", adviceOn: SystemError.advice(onFile:)) { () throws(Errno) in
            OwnedDescriptor(try kernel(.openat) { shim_openat(AT_FDCWD, path, flags, 0o644) })
        }
    }

    /// Writes a byte without waiting.
    ///
    /// The byte is lost if there is no room for it at once, as on a serial line that no device reads.
    package func write(_ byte: UInt8) {
        let raw = descriptor.raw
        do throws(Errno) {
            _ = try kernel(.write) { withUnsafeBytes(of: byte) { orErrno(Glibc.write(raw, $0.baseAddress, 1)) } }
        } catch .resourceTemporarilyUnavailable {
            // The reader of a pipe or terminal is not reading now, so the byte is lost.
        } catch {
            guard !hasFailed.exchange(true, ordering: .relaxed) else { return }
            onFailure(SystemError("write to \(path)", error))
        }
    }
}
