import CShims
import Glibc
import SystemPackage

/// A regular file, open to be read and written, close-on-exec.
struct RegularFile: ~Copyable {
    let descriptor: OwnedDescriptor
    let byteCount: Int

    /// Opens a file that exists.
    ///
    /// - Parameter action: what it is opened for, such as "lock", told where it is no regular file.
    init(_ path: String, to action: String) throws(SystemError) {
        let descriptor = try attempt("open \(path)") { () throws(Errno) in
            // Without O_NONBLOCK a pipe or a device may block.
            OwnedDescriptor(try kernel(.open) { shim_open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) })
        }
        let raw = descriptor.raw
        var status = stat()
        _ = try attempt("look at \(path)") { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError("\(action) \(path)", .invalidArgument, advice: "give a regular file")
        }
        self.descriptor = descriptor
        byteCount = status.st_size
    }
}
