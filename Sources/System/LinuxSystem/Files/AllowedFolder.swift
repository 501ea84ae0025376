import CShims
import Glibc
import SystemPackage

/// A folder whose files may be opened by paths that a peer gives.
package struct AllowedFolder: Hashable, Sendable {
    /// The folder's path, as it was given.
    package let path: String

    /// Allows a folder that exists now.
    ///
    /// - Throws: a ``SystemError`` if the path does not name a folder.
    package init(_ path: String) throws(SystemError) {
        self.path = path
        _ = try open()
    }

    /// Whether a path lies in the folder, judged by its components alone.
    ///
    /// The file system is not consulted: whether the file exists, and where a symbolic link leads, shows when the file
    /// is opened.
    package func covers(_ path: String) -> Bool { rest(of: path) != nil }

    private func rest(of path: String) -> String? {
        let (folder, file) = (FilePath(self.path), FilePath(path))
        guard file.root == folder.root, file.components.count > folder.components.count,
            file.components.starts(with: folder.components)
        else { return nil }
        return FilePath(root: nil, file.components.dropFirst(folder.components.count)).string
    }

    /// Opens the place that a path names (O_PATH); nil if the place lies outside the folder or does not exist.
    ///
    /// No part of the path may lead out of the folder, neither `..` nor a symbolic link.
    func place(of path: String) -> OwnedDescriptor? {
        // The peer that names the path must not learn what exists here.
        guard let rest = rest(of: path), let folder = try? open() else { return nil }
        for _ in 0..<8 {
            do throws(Errno) {
                return OwnedDescriptor(try kernel(.openat2) { shim_open_place_beneath(folder.raw, rest) })
            } catch .resourceTemporarilyUnavailable {
                continue  // A rename raced with the lookup, and the kernel could not decide.
            } catch {
                // The peer that names the path must not learn what exists here.
                return nil
            }
        }
        return nil
    }

    /// Opens the folder anew for each lookup, since a file system may have been mounted on it meanwhile.
    private func open() throws(SystemError) -> OwnedDescriptor {
        let path = path
        return try attempt("open the folder \(path)", adviceOn: { SystemError.advice(onFolder: $0, path) }) {
            () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open_place(path, O_DIRECTORY) })
        }
    }
}
