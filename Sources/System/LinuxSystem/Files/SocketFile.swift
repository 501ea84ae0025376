import CShims
import Glibc
import SystemPackage

/// The file of a Unix socket at which this process listens.
package struct SocketFile: Sendable {
    private final class Place: Sendable {
        let folder: SocketFolder
        let device: dev_t
        let inode: ino_t

        init(_ folder: consuming SocketFolder, _ status: stat) {
            self.folder = folder
            device = status.st_dev
            inode = status.st_ino
        }

        /// Removes the file, unless another file has taken its place.
        func remove() {
            guard folder.status?.st_ino == inode, folder.status?.st_dev == device else { return }
            folder.unlink()
        }
    }

    private let place: Place
    private let leftover: Int

    /// Binds a socket to a path, and listens.
    ///
    /// The file has its owner and mode from its first instant under its name. A socket file at which no process listens
    /// is replaced. Any other file is left alone, and the path is refused.
    init(
        listeningWith socket: borrowing OwnedDescriptor,
        at path: String,
        _ access: SocketAccess,
        backlog: CInt
    ) throws(SystemError) {
        let folder = try SocketFolder(of: path)
        let status =
            if folder.isGuarded, access == .ownUser, SocketAddress.shortPaths.contains(path.utf8.count) {
                try folder.bind(socket, backlog)
            } else {
                try folder.bindUnseen(socket, access, backlog)
            }
        let place = Place(folder, status)
        self.place = place
        leftover = Leftovers.note { place.remove() }
    }

    /// Removes the file, unless another file has taken its place.
    ///
    /// Call this before the socket is closed: the inode number of an open socket is not given to another file.
    package func remove() {
        Leftovers.forget(leftover)
        place.remove()
    }

    /// Removes the socket file that an exited listener has left behind.
    package static func remove(_ path: String) {
        // Another process may have removed the file already.
        _ = try? kernel(.unlink) { orErrno(unlink(path)) }
    }
}
