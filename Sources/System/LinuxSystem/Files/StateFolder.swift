import CShims
import Glibc
import SystemPackage

/// A folder in which a program keeps the state that must outlive it, and that only one program uses at a time.
///
/// Only the program's own user can open the folder, so that no other user can read or replace a file there. The folder
/// is locked for as long as the value exists.
package struct StateFolder: ~Copyable, Sendable {
    private let directory: Directory

    /// Creates the folder unless it exists, and locks it without waiting.
    ///
    /// - Throws: a ``SystemError`` if the folder cannot be made or locked, or if another user owns it or may open it.
    package init(_ path: String) throws(SystemError) {
        try StateFolder.make(path)
        let directory = try Directory(path)
        let raw = directory.descriptor.raw
        var status = stat()
        _ = try attempt("inspect \(path)") { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        guard status.st_uid == geteuid(), status.st_mode & 0o077 == 0 else {
            throw SystemError(
                "keep state in \(path)",
                .notPermitted,
                advice: "other users may change it; name a folder of mode 0700, or one that does not exist yet"
            )
        }
        do throws(Errno) {
            _ = try kernel(.flock) { orErrno(flock(raw, LOCK_EX | LOCK_NB)) }
        } catch {
            let holder = ProcessLock.holder(of: directory.descriptor).map { "process \($0) uses it" }
            throw SystemError("lock \(path)", error, advice: holder ?? "another process uses it")
        }
        self.directory = directory
    }

    /// The folder's path.
    package var path: String { directory.path }

    /// Creates a folder with mode 0700, and the folder in which it lies; does nothing for a folder that exists.
    private static func make(_ path: String) throws(SystemError) {
        let words = path.split(separator: "/")
        let parent = (path.hasPrefix("/") ? "/" : "") + words.dropLast().joined(separator: "/")
        for (folder, mode) in [(parent, 0o755), (path, 0o700)] as [(String, mode_t)] where !folder.isEmpty {
            do throws(Errno) {
                _ = try kernel(.mkdirat) { orErrno(mkdirat(AT_FDCWD, folder, mode)) }
            } catch .fileExists {
                continue
            } catch {
                let advice = SystemError.advice(onFolder: error, folder)
                throw SystemError("make the folder \(folder)", error, advice: advice)
            }
        }
    }

    /// The names of the files in the folder, in no particular order.
    package func names() throws(SystemError) -> [String] {
        try directory.names().filter { $0 != "." && $0 != ".." }
    }

    /// Creates a file of zeros, which only this user can open.
    ///
    /// - Parameters:
    ///   - name: a name that does not exist.
    ///   - byteCount: a multiple of the page size.
    package func makeFile(_ name: String, byteCount: Int) throws(SystemError) -> MemoryFile {
        let (path, raw) = ("\(directory.path)/\(name)", directory.descriptor.raw)
        let file = try attempt("make \(path)", advice: "free memory, or choose another folder") { () throws(Errno) in
            let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
            return OwnedDescriptor(try kernel(.openat) { shim_openat(raw, name, flags, 0o600) })
        }
        let made = file.raw
        _ = try attempt("size \(path) to \(byteCount) bytes") { () throws(Errno) in
            try kernel(.ftruncate) { orErrno(ftruncate(made, byteCount)) }
        }
        return try MemoryFile(adopting: file)
    }

    /// Opens a file that ``makeFile(_:byteCount:)`` has made, also in an earlier process.
    ///
    /// - Throws: a ``SystemError`` if the file cannot be opened, or is not a regular file of this user alone.
    package func openFile(_ name: String) throws(SystemError) -> MemoryFile {
        let (path, raw) = ("\(directory.path)/\(name)", directory.descriptor.raw)
        let file = try attempt("open \(path)") { () throws(Errno) in
            let flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
            return OwnedDescriptor(try kernel(.openat) { shim_openat(raw, name, flags, 0) })
        }
        let opened = file.raw
        var status = stat()
        _ = try attempt("inspect \(path)") { () throws(Errno) in
            try kernel(.fstat) { orErrno(fstat(opened, &status)) }
        }
        guard status.st_mode & S_IFMT == S_IFREG, status.st_uid == geteuid(), status.st_mode & 0o077 == 0 else {
            throw SystemError("use \(path)", .notPermitted, advice: "it is not a regular file of this user alone")
        }
        return try MemoryFile(adopting: file)
    }

    /// Reads a small file; nil if the name does not exist.
    package func read(_ name: String, atMost limit: Int) throws(SystemError) -> [UInt8]? {
        try directory.read(name, atMost: limit)
    }

    /// Writes a small file whole, by way of the name `name.new`.
    package func write(_ bytes: [UInt8], as name: String) throws(SystemError) {
        try directory.replace(name, with: bytes, by: "\(name).new")
    }

    /// Removes files; a name that does not exist is no error.
    package func remove(_ names: String...) throws(SystemError) {
        let raw = directory.descriptor.raw
        for name in names {
            do throws(Errno) {
                _ = try kernel(.unlinkat) { orErrno(unlinkat(raw, name, 0)) }
            } catch .noSuchFileOrDirectory {
                continue
            } catch {
                throw SystemError("remove \(directory.path)/\(name)", error)
            }
        }
    }
}
