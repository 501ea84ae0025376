import CShims
import Glibc
import SystemPackage

/// A Unix socket's file, opened to connect to it by a short path.
///
/// A socket's address has room for 107 bytes, and the path of a socket in a jail may be longer.
package final class SocketPlace: Sendable {
    private let descriptor: OwnedDescriptor?
    /// A path of at most 107 bytes, which leads to the socket for as long as this object lives.
    package let path: String

    /// Opens the file of a socket, unless its path is short already.
    package init(_ path: String) throws(SystemError) {
        let action = "connect to \(SocketAddress.unix(path: path))"
        try SocketAddress.checkPath(path, for: action)
        guard !SocketAddress.shortPaths.contains(path.utf8.count) else {
            descriptor = nil
            self.path = path
            return
        }
        let place: OwnedDescriptor = try attempt(action, advice: "check the path, and that a process listens there") {
            () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open_place(path, 0) })
        }
        let raw = place.raw
        self.path = "/proc/self/fd/\(raw)"
        descriptor = consume place
    }
}
