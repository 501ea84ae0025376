import CShims
import Glibc
import SystemPackage

/// An open directory, whose entries are named relative to it.
///
/// A mount or a rename that changes what the directory's path means does not change the open directory.
package struct Directory: ~Copyable, Sendable {
    /// The outcome of ``publish(_:as:by:)``.
    package enum Publication: Sendable, Equatable {
        /// The file was created under this name.
        case made
        /// The name exists; a file system that repeats requests by itself may have created it in this very call.
        case exists
        /// The file system has answered that it created nothing.
        case refused(SystemError)
        /// No answer came: the name may exist, or appear later.
        case unknown(SystemError)
    }

    let descriptor: OwnedDescriptor
    /// The path by which the directory was opened.
    package let path: String

    /// Opens a directory.
    package init(_ path: String) throws(SystemError) {
        self.path = path
        descriptor = try attempt("open the directory \(path)", adviceOn: { SystemError.advice(onFolder: $0, path) }) {
            () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open(path, Directory.opening) })
        }
    }

    /// Makes a directory, and those above it that are missing.
    ///
    /// A directory that is there already is left as it is.
    package static func make(_ path: String) throws(SystemError) {
        try attempt("make the folder \(path)") { () throws(Errno) in try makeAll(path) }
    }

    private static func makeAll(_ path: String) throws(Errno) {
        func makeLast() throws(Errno) {
            do throws(Errno) {
                _ = try kernel(.mkdirat) { orErrno(mkdirat(AT_FDCWD, path, 0o777)) }
            } catch .fileExists {
                // Fails if this is a file.
                _ = OwnedDescriptor(try kernel(.open) { shim_open(path, Directory.opening) })
            }
        }
        do throws(Errno) {
            try makeLast()
        } catch .noSuchFileOrDirectory {
            var above = path[...]
            while above.last == "/" { above.removeLast() }
            while let last = above.last, last != "/" { above.removeLast() }
            guard !above.isEmpty else { throw .noSuchFileOrDirectory }
            try makeAll(String(above))
            try makeLast()
        }
    }

    private init(_ descriptor: consuming OwnedDescriptor, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    private static let opening = O_RDONLY | O_DIRECTORY | O_CLOEXEC

    /// Opens a subdirectory; nil if the name does not exist.
    ///
    /// A symbolic link is not followed but refused.
    package func directory(_ name: String) throws(SystemError) -> Directory? {
        do throws(Errno) {
            let raw = try kernel(.openat) { shim_openat(descriptor.raw, name, Directory.opening | O_NOFOLLOW, 0) }
            return Directory(OwnedDescriptor(raw), path: "\(path)/\(name)")
        } catch .noSuchFileOrDirectory {
            return nil
        } catch {
            throw SystemError(
                "open the directory \(path)/\(name)",
                error,
                advice: error == .notDirectory ? "it is a file or a link; use another name" : nil
            )
        }
    }

    /// Creates a subdirectory, unless the name exists.
    package func makeDirectory(_ name: String) throws(SystemError) {
        do throws(Errno) {
            _ = try kernel(.mkdirat) { orErrno(mkdirat(descriptor.raw, name, 0o755)) }
        } catch .fileExists {
            // The name may belong to a file, in which case opening it as a directory fails.
        } catch {
            throw SystemError("make the directory \(path)/\(name)", error)
        }
    }

    /// The names of all entries, with `.` and `..`, in no particular order.
    package func names() throws(SystemError) -> [String] {
        var names: [String] = []
        var entries = [UInt8](repeating: 0, count: 32768)
        try attempt("list \(path)") { () throws(Errno) in
            // The position in the listing belongs to the open directory, which may have been listed before.
            _ = try kernel(.lseek) { orErrno(lseek(descriptor.raw, 0, SEEK_SET)) }
            while true {
                let count = try kernel(.getdents64) { shim_getdents64(descriptor.raw, &entries, entries.count) }
                if count == 0 { return }
                entries.withUnsafeBytes { bytes in
                    var at = 0
                    while at < count {
                        // struct linux_dirent64: the entry's length is at byte 16, its name at byte 19.
                        let length = Int(bytes.loadUnaligned(fromByteOffset: at + 16, as: UInt16.self))
                        let name = bytes[(at + 19)..<(at + length)].prefix { $0 != 0 }
                        names.append(String(decoding: name, as: UTF8.self))
                        at += length
                    }
                }
            }
        }
        return names
    }

    /// Reads the first `limit` bytes of a file; nil if the name does not exist.
    ///
    /// A directory or a symbolic link reads as no bytes.
    package func read(_ name: String, atMost limit: Int) throws(SystemError) -> [UInt8]? {
        do throws(Errno) {
            // The name must not lead elsewhere as a symbolic link, nor block as a pipe.
            let flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
            let file = OwnedDescriptor(try kernel(.openat) { shim_openat(descriptor.raw, name, flags, 0) })
            var bytes = [UInt8](repeating: 0, count: limit)
            var filled = 0
            while filled < limit {
                let count = try kernel(.read) {
                    bytes.withUnsafeMutableBytes { bytes in
                        let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[filled...])
                        return orErrno(Glibc.read(file.raw, rest.baseAddress, rest.count))
                    }
                }
                if count == 0 { break }
                filled += count
            }
            return Array(bytes[..<filled])
        } catch .noSuchFileOrDirectory {
            return nil
        } catch .isDirectory, .tooManySymbolicLinkLevels {
            return []
        } catch {
            throw SystemError("read \(path)/\(name)", error)
        }
    }

    /// Creates a file with all of its bytes at once, if the name is free.
    ///
    /// Of any number of processes and hosts that try, at most one creates the name, and no reader ever sees a part of
    /// the bytes. The bytes are durable before the name exists; the name is durable once ``sync()`` returns.
    ///
    /// - Parameters:
    ///   - bytes: the whole contents of the file.
    ///   - name: the name to create in this directory.
    ///   - temporary: another name, which no other process uses. The file under this name is removed again; if the
    ///     process is killed first, the file stays behind and means nothing.
    /// - Throws: an error that occurred before the name was tried; the name was then not created.
    package func publish(
        _ bytes: [UInt8],
        as name: String,
        by temporary: String
    ) throws(SystemError) -> Publication {
        let leftover = noteTemporary(temporary)
        defer { removeTemporary(temporary, leftover) }
        try attempt("write \(path)/\(temporary)") { () throws(Errno) in try write(bytes, to: temporary) }
        do throws(Errno) {
            _ = try kernel(.linkat) { orErrno(linkat(descriptor.raw, temporary, descriptor.raw, name, 0)) }
            return .made
        } catch .fileExists {
            return .exists
        } catch {
            let told = SystemError("make \(path)/\(name)", error)
            return Directory.isRefusal(error) ? .refused(told) : .unknown(told)
        }
    }

    /// Replaces a file, or creates it, with all of its bytes at once.
    ///
    /// A reader that opens the name finds all of the old bytes or all of the new ones. The new bytes are durable before
    /// the name refers to them; the name is durable once ``sync()`` returns.
    ///
    /// - Parameters:
    ///   - name: the file's name in this directory.
    ///   - bytes: the whole new contents of the file.
    ///   - temporary: another name, as in ``publish(_:as:by:)``.
    /// - Throws: a ``SystemError``, also if the name belongs to a symbolic link, a device or another thing that is not
    ///   a regular file.
    package func replace(_ name: String, with bytes: [UInt8], by temporary: String) throws(SystemError) {
        try requireFile(orNothingAt: name)
        let leftover = noteTemporary(temporary)
        defer { removeTemporary(temporary, leftover) }
        try attempt("write \(path)/\(name)") { () throws(Errno) in
            try write(bytes, to: temporary)
            _ = try kernel(.renameat) { orErrno(renameat(descriptor.raw, temporary, descriptor.raw, name)) }
        }
    }

    /// Throws the error that ``replace(_:with:by:)`` would throw now, and changes nothing.
    package func requireReplaceable(_ name: String, by temporary: String) throws(SystemError) {
        try requireFile(orNothingAt: name)
        let leftover = noteTemporary(temporary)
        defer { removeTemporary(temporary, leftover) }
        try attempt("write \(path)/\(name)", advice: "give a file in a folder that you can write to") {
            () throws(Errno) in
            try write([], to: temporary)
        }
    }

    /// Notes a temporary file for removal if the process exits before it is removed.
    private func noteTemporary(_ name: String) -> Int {
        let file = "\(path)/\(name)"
        return Leftovers.note { unlink(file) }
    }

    private func removeTemporary(_ name: String, _ leftover: Int) {
        Leftovers.forget(leftover)
        // After a rename the name is gone; a file that cannot be removed has no meaning.
        _ = try? kernel(.unlinkat) { orErrno(unlinkat(descriptor.raw, name, 0)) }
    }

    private func requireFile(orNothingAt name: String) throws(SystemError) {
        var status = stat()
        do throws(Errno) {
            _ = try kernel(.fstatat) { orErrno(fstatat(descriptor.raw, name, &status, AT_SYMLINK_NOFOLLOW)) }
        } catch .noSuchFileOrDirectory {
            return
        } catch {
            throw SystemError("inspect \(path)/\(name)", error)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError("write \(path)/\(name)", .invalidArgument, advice: "give a regular file or a new name")
        }
    }

    /// Creates a file that did not exist, and makes its bytes durable, though not its name.
    ///
    /// The mode is 0644, less the umask.
    private func write(_ bytes: [UInt8], to name: String) throws(Errno) {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        let file = OwnedDescriptor(try kernel(.openat) { shim_openat(descriptor.raw, name, flags, 0o644) })
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = try kernel(.write) {
                rest.withUnsafeBytes { orErrno(Glibc.write(file.raw, $0.baseAddress, $0.count)) }
            }
            rest = rest.dropFirst(count)
        }
        _ = try kernel(.fsync) { orErrno(fsync(file.raw)) }
    }

    /// Whether link(2) reports this error only as an answer that nothing was created.
    ///
    /// A network file system reports other errors, such as EIO and ETIMEDOUT, also when no answer came to a request
    /// that may still be carried out.
    private static func isRefusal(_ error: Errno) -> Bool {
        switch error {
        case .permissionDenied, .notPermitted, .noSpace, .diskQuotaExceeded, .readOnlyFileSystem, .tooManyLinks,
            .noSuchFileOrDirectory, .notDirectory, .fileNameTooLong, .notSupported:
            true
        default:
            false
        }
    }

    /// Makes the names in the directory durable.
    package func sync() throws(SystemError) {
        try attempt("make \(path) durable") { () throws(Errno) in
            _ = try kernel(.fsync) { orErrno(fsync(descriptor.raw)) }
        }
    }
}
