import CShims
import Glibc
import SystemPackage

/// A regular file that is open, close-on-exec.
struct RegularFile: ~Copyable {
    let descriptor: OwnedDescriptor
    let byteCount: Int

    /// Opens a file that exists.
    ///
    /// - Parameters:
    ///   - action: what it is opened for, such as "lock", told where it is no regular file.
    ///   - isReadOnly: whether it is opened to be read only, or to be written too.
    init(_ path: String, to action: String, isReadOnly: Bool = false) throws(SystemError) {
        let access = isReadOnly ? O_RDONLY : O_RDWR
        let descriptor = try attempt("open \(path)") { () throws(Errno) in
            // Without O_NONBLOCK a pipe or a device may block.
            OwnedDescriptor(try kernel(.open) { shim_open(path, access | O_NONBLOCK | O_CLOEXEC) })
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
