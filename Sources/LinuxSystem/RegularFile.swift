import CShims
import Glibc
import SystemPackage

/// A regular file, open, close-on-exec.
///
/// A path is first resolved to a place, which neither reads nor writes nor waits, and what is there is looked at: a pipe,
/// a terminal or a device is never opened.
struct RegularFile: ~Copyable {
    let descriptor: OwnedDescriptor
    let byteCount: Int

    /// Opens a file that exists.
    ///
    /// - Parameters:
    ///   - action: what it is opened for, such as "lock", told where it is no regular file.
    ///   - access: O_RDWR to read and write it, or O_RDONLY.
    init(_ path: String, to action: String, access: CInt = O_RDWR) throws(SystemError) {
        let place = try attempt("open \(path)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open_place(path, 0) })
        }
        try self.init(at: place, path, to: action, access)
    }

    /// Opens a file whose path somebody else gave, if it lies in one of these folders.
    ///
    /// - Throws: the same for whatever does not, be it there or not.
    init(_ path: String, in folders: [AllowedFolder], to action: String, access: CInt = O_RDWR) throws(SystemError) {
        let refusal = SystemError(
            "\(action) \(path)",
            .permissionDenied,
            advice: "it is no regular file in a folder that may be used"
        )
        for folder in folders {
            guard let place = folder.place(of: path) else { continue }
            guard RegularFile.isRegular(place) else { throw refusal }
            try self.init(at: place, path, to: action, access)
            return
        }
        throw refusal
    }

    private init(
        at place: borrowing OwnedDescriptor,
        _ path: String,
        to action: String,
        _ access: CInt
    ) throws(SystemError) {
        var status = stat()
        var raw = place.raw
        _ = try attempt("look at \(path)") { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        if status.st_mode & S_IFMT == S_IFDIR, access == O_RDWR { throw SystemError("open \(path)", .isDirectory) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError("\(action) \(path)", .invalidArgument, advice: "give a regular file")
        }
        // The same file, whatever the path has come to name.
        let link = "/proc/self/fd/\(raw)"
        let descriptor = try attempt("open \(path)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open(link, access | O_NONBLOCK | O_CLOEXEC) })
        }
        raw = descriptor.raw
        _ = try attempt("look at \(path)") { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        self.descriptor = descriptor
        byteCount = status.st_size
    }

    private static func isRegular(_ place: borrowing OwnedDescriptor) -> Bool {
        var status = stat()
        return fstat(place.raw, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }
}
