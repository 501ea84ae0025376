import CShims
import Glibc
import SystemPackage

/// An exclusive lock on a whole file, held until the value is dropped or its process ends.
///
/// It belongs to the open file (F_OFD_SETLK): other code of this process that opens and closes the file does not lose
/// it, and a second holder in this process is refused like one in another. It is advisory, and excludes the older
/// fcntl locks too, so also QEMU's on an image.
public struct FileLock: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    /// Opens a file to read and write, and locks it without waiting.
    ///
    /// - Throws: among others, who holds it, as far as the kernel tells.
    public init(_ path: String) throws(SystemError) {
        try self.init(RegularFile(path, to: "lock"), path)
    }

    /// Opens and locks a file whose path somebody else gave, if it lies in one of these folders.
    ///
    /// - Throws: the same for whatever does not, be it there or not.
    public init(_ path: String, in folders: [AllowedFolder]) throws(SystemError) {
        try self.init(RegularFile(path, in: folders, to: "lock"), path)
    }

    private init(_ file: consuming RegularFile, _ path: String) throws(SystemError) {
        let raw = file.descriptor.raw
        do throws(Errno) {
            _ = try kernel(.fcntl) { shim_lock_file(raw, CInt(F_WRLCK)) }
        } catch .resourceTemporarilyUnavailable {
            throw SystemError("lock \(path)", .resourceTemporarilyUnavailable, advice: FileLock.holder(of: raw, path))
        } catch {
            throw SystemError("lock \(path)", error)
        }
        descriptor = file.descriptor
    }

    deinit {
        // Closing is not enough: a process that is just being started has a copy until it runs its own program.
        _ = try? kernel(.fcntl) { shim_lock_file(descriptor.raw, CInt(F_UNLCK)) }
    }

    /// Gives the lock back; so does dropping the value.
    public consuming func release() {}

    private static func holder(of descriptor: CInt, _ path: String) -> String {
        let process = (try? kernel(.fcntl) { shim_file_locker(descriptor) }) ?? 0
        // The kernel names the holder of a process's lock, not that of an open file's.
        return process > 0 ? "process \(process) holds it" : "another holds it, see: fuser -v \(path)"
    }
}
