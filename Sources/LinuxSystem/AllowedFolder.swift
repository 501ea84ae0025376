import CShims
import Glibc
import SystemPackage

/// A folder in which files may be opened whose paths somebody else gives.
public struct AllowedFolder: Hashable, Sendable {
    /// Its absolute path.
    public let path: String

    /// Names a folder.
    ///
    /// - Throws: if it is none now.
    public init(_ path: String) throws(SystemError) {
        self.path = path
        _ = try open()
    }

    /// Whether a path says that it lies in the folder. Nothing is looked at: what is there, if anything, shows when the
    /// file is opened.
    public func covers(_ path: String) -> Bool { rest(of: path) != nil }

    private func rest(of path: String) -> String? {
        let (folder, file) = (FilePath(self.path), FilePath(path))
        guard file.root == folder.root, file.components.count > folder.components.count,
            file.components.starts(with: folder.components)
        else { return nil }
        return FilePath(root: nil, file.components.dropFirst(folder.components.count)).string
    }

    /// What is there, as a place that was not opened yet; nil for whatever lies outside, or is not there. No part of the
    /// path leads out of the folder, be it `..`, or a symbolic link.
    func place(of path: String) -> OwnedDescriptor? {
        guard let rest = rest(of: path), let folder = try? open() else { return nil }
        for _ in 0..<8 {
            do throws(Errno) {
                return OwnedDescriptor(try kernel(.openat2) { shim_open_place_beneath(folder.raw, rest) })
            } catch .resourceTemporarilyUnavailable {
                continue  // Something was renamed meanwhile, so that the kernel could not tell.
            } catch {
                return nil
            }
        }
        return nil
    }

    /// Each time anew: what is mounted there may come after this was made.
    private func open() throws(SystemError) -> OwnedDescriptor {
        let path = path
        return try attempt("open the folder \(path)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open_place(path, O_DIRECTORY) })
        }
    }
}
