import CShims
import Glibc
import SystemPackage

/// An exclusive lock on a whole file, held until the value is dropped or the process ends.
///
/// The lock belongs to the open file (F_OFD_SETLK). Other code of this process that opens and closes the file does not
/// release it, and a second lock in this process is refused like one from another process. The lock is advisory. It
/// also excludes the older fcntl locks, and so those of QEMU on a disk image.
package struct FileLock: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    /// Opens a file for reading and writing, and locks it without waiting.
    ///
    /// - Throws: a ``SystemError``; if the file is locked, the error names the holder as far as the kernel reports it.
    package init(_ path: String) throws(SystemError) {
        try self.init(RegularFile(path, to: "lock"), path)
    }

    /// Opens and locks a file by a path that a peer gave, if the file lies in one of these folders.
    ///
    /// - Throws: the same error for every path outside of the folders, whether it exists or not.
    package init(_ path: String, in folders: [AllowedFolder]) throws(SystemError) {
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
        // Closing is not enough: a process that is being started holds a copy of the descriptor until it executes its
        // program. Unlocking this file cannot fail.
        _ = try? kernel(.fcntl) { shim_lock_file(descriptor.raw, CInt(F_UNLCK)) }
    }

    /// Releases the lock, as dropping the value does.
    package consuming func release() {}

    private static func holder(of descriptor: CInt, _ path: String) -> String {
        // The holder is only a detail of an error that is reported anyway.
        let process = (try? kernel(.fcntl) { shim_file_locker(descriptor) }) ?? 0
        // The kernel names the holder of a process's lock, but not that of an open file's lock.
        return process > 0 ? "process \(process) holds it" : "it is in use; find its holder with: fuser -v \(path)"
    }
}
