import CShims
import Glibc
import SystemPackage

/// The standard error of this process, for lines that nobody must have to wait for.
package enum StandardError {
    private enum Kind: Sendable {
        /// An opening of the same pipe that is this process's own, and does not block.
        case pipe(CInt)
        case socket
        /// A file or a terminal, which only a person can stop.
        case other
    }

    /// How standard error is written to.
    ///
    /// The pipe is opened again because O_NONBLOCK belongs to the opening, which other processes share.
    private static let kind: Kind = {
        var status = stat()
        guard fstat(STDERR_FILENO, &status) == 0 else { return .other }
        switch status.st_mode & S_IFMT {
        case S_IFSOCK: return .socket
        case S_IFIFO:
            let flags = O_WRONLY | O_NONBLOCK | O_CLOEXEC
            // A pipe of another user cannot be opened again. Lines then wait for its reader.
            guard let raw = try? kernel(.open, { shim_open("/proc/self/fd/\(STDERR_FILENO)", flags) }) else {
                return .other
            }
            return .pipe(raw)
        default: return .other
        }
    }()

    /// Waits until there is room, or until the time is over.
    package static func waitForRoom(milliseconds: Int32) {
        let raw: CInt
        switch kind {
        case .pipe(let own): raw = own
        case .socket: raw = STDERR_FILENO
        case .other: return
        }
        var watched = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
        // poll(2) fails here only for want of kernel memory; there is then no wait.
        _ = try? kernel(.poll) { orErrno(poll(&watched, 1, milliseconds)) }
    }

    /// Writes bytes if there is room for them.
    ///
    /// - Returns: false if there was no room. Of at most 4096 bytes, none was written then.
    package static func writeNow(_ bytes: [UInt8]) -> Bool {
        do throws(Errno) {
            _ = try kernel(.write) {
                bytes.withUnsafeBytes { bytes in
                    switch kind {
                    case .pipe(let raw): orErrno(Glibc.write(raw, bytes.baseAddress, bytes.count))
                    case .socket:
                        orErrno(send(STDERR_FILENO, bytes.baseAddress, bytes.count, CInt(MSG_DONTWAIT)))
                    case .other: orErrno(Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count))
                    }
                }
            }
            return true
        } catch {
            // A line that cannot be written at all, for example to a full disk, is lost: there is no other place for it.
            return error != .resourceTemporarilyUnavailable
        }
    }
}
