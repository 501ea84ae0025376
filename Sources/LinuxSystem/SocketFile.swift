import CShims
import Glibc
import SystemPackage

/// The file of a Unix socket that listens here, for its owner only.
public struct SocketFile: Hashable, Sendable {
    private let path: String
    private let device: dev_t
    private let inode: ino_t

    /// Binds a socket, whose file has mode 0600 from its first instant.
    ///
    /// A socket file that nobody listens on is replaced; anything else in its place is left alone.
    init(binding socket: borrowing OwnedDescriptor, to path: String) throws(SystemError) {
        let action = SocketFile.action(path)
        guard (1...107).contains(path.utf8.count) else {
            throw SystemError(action, .fileNameTooLong, advice: "a socket's path has 1 to 107 bytes")
        }
        let raw = socket.raw
        do throws(Errno) {
            // The mode of the unbound socket becomes the mode of the file that bind makes.
            _ = try kernel(.fchmod) { orErrno(fchmod(raw, 0o600)) }
            _ = try kernel(.bind) { shim_bind_unix(raw, path) }
        } catch .addressInUse {
            try SocketFile.removeStale(path)
            _ = try attempt(action, advice: "another process listens there; choose another path") { () throws(Errno) in
                try kernel(.bind) { shim_bind_unix(raw, path) }
            }
        } catch {
            throw SystemError(action, error, advice: "choose a folder that you can write to")
        }
        var file = stat()
        _ = try attempt(action) { () throws(Errno) in try kernel(.lstat) { orErrno(lstat(path, &file)) } }
        self.path = path
        device = file.st_dev
        inode = file.st_ino
    }

    /// Removes the file, unless another one has taken its place.
    ///
    /// To be called before the socket is closed: an open socket holds its inode, whose number is then no other's.
    public func remove() {
        var file = stat()
        guard lstat(path, &file) == 0, file.st_dev == device, file.st_ino == inode else { return }
        // Somebody else may have removed it already.
        _ = try? kernel(.unlink) { orErrno(unlink(path)) }
    }

    /// Removes the file of a socket whose listener has ended without doing so.
    public static func remove(_ path: String) {
        // Somebody else may have removed it already.
        _ = try? kernel(.unlink) { orErrno(unlink(path)) }
    }

    private static func action(_ path: String) -> String { "listen at \(SocketAddress.unix(path: path))" }

    private static func removeStale(_ path: String) throws(SystemError) {
        var file = stat()
        do throws(Errno) {
            _ = try kernel(.lstat) { orErrno(lstat(path, &file)) }
            // Connecting to a plain file is refused too: it must not be mistaken for a stale socket.
            guard file.st_mode & S_IFMT == S_IFSOCK else { throw .fileExists }
        } catch .noSuchFileOrDirectory {
            return
        } catch {
            throw SystemError(action(path), error, advice: "a file that is no socket is there; choose another path")
        }
        // A listener whose queue is full would hold up a socket that blocks.
        let probe = try Listener.socket(AF_UNIX, isBlocking: false)
        do throws(Errno) {
            _ = try kernel(.connect) { shim_connect_unix(probe.raw, path) }
        } catch .connectionRefused {
            // Somebody else may have removed it already; what cannot be removed, bind tells.
            _ = try? kernel(.unlink) { orErrno(unlink(path)) }
        } catch {
            // Whatever else is there, bind tells.
        }
    }
}
