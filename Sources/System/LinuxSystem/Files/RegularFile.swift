import CShims
import Glibc
import SystemPackage

/// An open regular file, close-on-exec.
///
/// A path is first opened as a place (O_PATH), which neither reads nor writes nor waits, and the type of the file is
/// checked. So a pipe, a terminal or a device is never opened.
struct RegularFile: ~Copyable {
    let descriptor: OwnedDescriptor
    let byteCount: Int
    /// Whether users outside of the file's group may read or change the file.
    let isOpenToOthers: Bool

    /// Opens an existing file.
    ///
    /// - Parameters:
    ///   - action: what the file is opened for, such as "lock"; named in the error for a file that is not regular.
    ///   - access: O_RDWR for reading and writing, or O_RDONLY.
    init(_ path: String, to action: String, access: CInt = O_RDWR) throws(SystemError) {
        let place = try attempt("open \(path)", adviceOn: SystemError.advice(onFile:)) { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open_place(path, 0) })
        }
        try self.init(at: place, path, to: action, access)
    }

    /// Opens a file by a path that a peer gave, if the file lies in one of these folders.
    ///
    /// - Throws: the same error for every path outside of the folders, whether it exists or not.
    init(_ path: String, in folders: [AllowedFolder], to action: String, access: CInt = O_RDWR) throws(SystemError) {
        let refusal = SystemError(
            "\(action) \(path)",
            .permissionDenied,
            advice: "it is not a regular file in an allowed folder"
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
        _ = try attempt("inspect \(path)") { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        if status.st_mode & S_IFMT == S_IFDIR, access == O_RDWR {
            throw SystemError("open \(path)", .isDirectory, advice: "give a regular file")
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError("\(action) \(path)", .invalidArgument, advice: "give a regular file")
        }
        // The link opens the same file again, whatever the path names by now.
        let link = "/proc/self/fd/\(raw)"
        let descriptor = try attempt("open \(path)", adviceOn: SystemError.advice(onFile:)) { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open(link, access | O_NONBLOCK | O_CLOEXEC) })
        }
        raw = descriptor.raw
        _ = try attempt("inspect \(path)") { () throws(Errno) in try kernel(.fstat) { orErrno(fstat(raw, &status)) } }
        self.descriptor = descriptor
        byteCount = status.st_size
        isOpenToOthers = status.st_mode & (S_IROTH | S_IWOTH) != 0
    }

    private static func isRegular(_ place: borrowing OwnedDescriptor) -> Bool {
        var status = stat()
        return fstat(place.raw, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }
}
