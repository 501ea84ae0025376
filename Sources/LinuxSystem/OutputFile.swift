import CShims
import Glibc
import SystemPackage

/// A file, terminal or pipe that bytes are written to, behind what is there.
public final class OutputFile: Sendable {
    private let descriptor: OwnedDescriptor

    /// Opens a file, which is made where there is none.
    public init(path: String) throws(SystemError) {
        let flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK
        descriptor = try attempt("write to \(path)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.openat) { shim_openat(AT_FDCWD, path, flags, 0o644) })
        }
    }

    /// Writes a byte. Where it finds no room at once it is lost, as on a line to which nobody listens.
    public func write(_ byte: UInt8) {
        let raw = descriptor.raw
        _ = try? kernel(.write) { withUnsafeBytes(of: byte) { orErrno(Glibc.write(raw, $0.baseAddress, 1)) } }
    }
}
