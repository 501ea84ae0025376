import CShims
import Glibc
import SystemPackage

/// An open directory. What is in it is named relative to it, and stays the same if a mount or a rename changes what its
/// path means.
public struct Directory: ~Copyable, Sendable {
    /// What became of a name that was to be made.
    public enum Publication: Sendable, Equatable {
        /// It was made.
        case made
        /// It is there; a file system that repeats requests by itself may have made it just so.
        case exists
        /// The file system has answered that it made nothing.
        case refused(SystemError)
        /// It may be there, or appear later: nobody has answered.
        case unknown(SystemError)
    }

    private let descriptor: OwnedDescriptor
    /// Where it was opened.
    public let path: String

    /// Opens a directory.
    public init(_ path: String) throws(SystemError) {
        self.path = path
        descriptor = try attempt("open the directory \(path)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open(path, Directory.opening) })
        }
    }

    private init(_ descriptor: consuming OwnedDescriptor, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    private static let opening = O_RDONLY | O_DIRECTORY | O_CLOEXEC

    /// Opens a directory in it; nil if there is none of that name.
    public func directory(_ name: String) throws(SystemError) -> Directory? {
        do throws(Errno) {
            let raw = try kernel(.openat) { shim_openat(descriptor.raw, name, Directory.opening | O_NOFOLLOW, 0) }
            return Directory(OwnedDescriptor(raw), path: "\(path)/\(name)")
        } catch .noSuchFileOrDirectory {
            return nil
        } catch {
            throw SystemError("open the directory \(path)/\(name)", error)
        }
    }

    /// Makes a directory in it, unless there is one.
    public func makeDirectory(_ name: String) throws(SystemError) {
        do throws(Errno) {
            _ = try kernel(.mkdirat) { orErrno(mkdirat(descriptor.raw, name, 0o755)) }
        } catch .fileExists {
            // The name may be a file's: opening it tells.
        } catch {
            throw SystemError("make the directory \(path)/\(name)", error)
        }
    }

    /// The names of all that is in it, in no order.
    public func names() throws(SystemError) -> [String] {
        var names: [String] = []
        var entries = [UInt8](repeating: 0, count: 32768)
        try attempt("list \(path)") { () throws(Errno) in
            // The place in the listing belongs to the open directory, which may have been listed before.
            _ = try kernel(.lseek) { orErrno(lseek(descriptor.raw, 0, SEEK_SET)) }
            while true {
                let count = try kernel(.getdents64) { shim_getdents64(descriptor.raw, &entries, entries.count) }
                if count == 0 { return }
                entries.withUnsafeBytes { bytes in
                    var at = 0
                    while at < count {
                        // struct linux_dirent64: the entry's length at 16, its name at 19.
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

    /// The first `limit` bytes of a file in it; nil if there is none of that name.
    public func read(_ name: String, atMost limit: Int) throws(SystemError) -> [UInt8]? {
        do throws(Errno) {
            // Neither a link nor a pipe under this name leads anywhere.
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
        } catch {
            throw SystemError("read \(path)/\(name)", error)
        }
    }

    /// Makes a file that nobody ever sees without all of its bytes, if the name is free: of any number of processes and
    /// hosts that try, at most one makes it. The bytes are durable before the name; the name is when ``sync()`` returns.
    ///
    /// - Parameter temporary: another name, which nobody else uses. It is removed again; what a process leaves behind
    ///   that ends before means nothing.
    /// - Throws: what failed before the name was tried: it was not made.
    public func publish(
        _ bytes: [UInt8],
        as name: String,
        by temporary: String
    ) throws(SystemError) -> Publication {
        defer { _ = try? kernel(.unlinkat) { orErrno(unlinkat(descriptor.raw, temporary, 0)) } }
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

    /// Puts a file with these bytes in the place of the one of that name, or makes it: whoever opens the name finds all of
    /// the old or all of the new. The bytes are durable before the name; the name is when ``sync()`` returns.
    ///
    /// - Parameter temporary: as in ``publish(_:as:by:)``.
    /// - Throws: what failed; also where the name is that of a link, a device or another thing that is no regular file.
    public func replace(_ name: String, with bytes: [UInt8], by temporary: String) throws(SystemError) {
        try requireFile(orNothingAt: name)
        defer { _ = try? kernel(.unlinkat) { orErrno(unlinkat(descriptor.raw, temporary, 0)) } }
        try attempt("write \(path)/\(name)") { () throws(Errno) in
            try write(bytes, to: temporary)
            _ = try kernel(.renameat) { orErrno(renameat(descriptor.raw, temporary, descriptor.raw, name)) }
        }
    }

    /// Throws what ``replace(_:with:by:)`` would throw now, and changes nothing.
    public func requireReplaceable(_ name: String, by temporary: String) throws(SystemError) {
        try requireFile(orNothingAt: name)
        defer { _ = try? kernel(.unlinkat) { orErrno(unlinkat(descriptor.raw, temporary, 0)) } }
        try attempt("write \(path)/\(name)", advice: "give a file in a folder that you can write to") {
            () throws(Errno) in
            try write([], to: temporary)
        }
    }

    private func requireFile(orNothingAt name: String) throws(SystemError) {
        var status = stat()
        do throws(Errno) {
            _ = try kernel(.fstatat) { orErrno(fstatat(descriptor.raw, name, &status, AT_SYMLINK_NOFOLLOW)) }
        } catch .noSuchFileOrDirectory {
            return
        } catch {
            throw SystemError("look at \(path)/\(name)", error)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError("write \(path)/\(name)", .invalidArgument, advice: "give a regular file or a new name")
        }
    }

    /// Makes a file that was not there, durable but for its name. Who can read it is what the umask leaves of 0644.
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

    /// Whether link(2) gives this error only as an answer. Others, such as EIO and ETIMEDOUT, a network file system
    /// gives too when no answer came, to a request that may still be carried out.
    private static func isRefusal(_ error: Errno) -> Bool {
        switch error {
        case .permissionDenied, .notPermitted, .noSpace, .diskQuotaExceeded, .readOnlyFileSystem, .tooManyLinks,
            .noSuchFileOrDirectory, .notDirectory, .fileNameTooLong, .notSupported:
            true
        default:
            false
        }
    }

    /// Makes the names in it durable.
    public func sync() throws(SystemError) {
        try attempt("make \(path) durable") { () throws(Errno) in
            _ = try kernel(.fsync) { orErrno(fsync(descriptor.raw)) }
        }
    }
}
