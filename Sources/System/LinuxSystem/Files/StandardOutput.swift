import CShims
import Glibc
import SystemPackage

/// The standard output of this process.
package enum StandardOutput {
    /// Makes sure that descriptors 0 to 2 are open, so that no file opened later becomes standard output.
    ///
    /// If standard output was closed, all printing fails.
    package static func open() {
        for (descriptor, path, flags) in [
            (0, "/dev/null", O_RDONLY), (1, "/dev/full", O_WRONLY), (2, "/dev/null", O_WRONLY),
        ]
        where fcntl(CInt(descriptor), F_GETFD) < 0 {
            // open(2) returns the lowest free descriptor, which is this one: those below are open.
            _ = shim_open(path, flags)
        }
    }

    /// Writes all bytes to standard output, and waits for room if there is none.
    package static func write(_ bytes: [UInt8]) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let rest = bytes[done...]
            do throws(Errno) {
                done += try kernel(.write) {
                    rest.withUnsafeBytes { orErrno(Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count)) }
                }
            } catch .resourceTemporarilyUnavailable {
                // The process that created the pipe may have made it non-blocking.
                var output = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
                _ = try attempt("wait for standard output") { () throws(Errno) in
                    try kernel(.poll) { orErrno(poll(&output, 1, -1)) }
                }
            } catch {
                throw SystemError("write to standard output", error)
            }
        }
    }
}
