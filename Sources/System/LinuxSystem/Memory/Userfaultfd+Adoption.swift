import CShims
import Glibc
import SystemPackage

/// Taking a userfaultfd out of another process that still has a copy.
extension Userfaultfd {
    /// The inode of the userfaultfd, which tells it from all others of this host until its last copy is closed.
    ///
    /// The kernel gives each userfaultfd an inode of its own (`anon_inode_create_getfd` in fs/userfaultfd.c), which all
    /// copies share.
    package var inode: UInt64 {
        get throws(SystemError) {
            let raw = descriptor.raw
            return try attempt("inspect a userfaultfd") { () throws(Errno) in try Userfaultfd.inode(of: raw) }
        }
    }

    private static func inode(of descriptor: CInt) throws(Errno) -> UInt64 {
        var status = stat()
        _ = try kernel(.fstat) { orErrno(fstat(descriptor, &status)) }
        return UInt64(status.st_ino)
    }

    /// Copies a userfaultfd out of a process (pidfd_getfd).
    ///
    /// - Parameters:
    ///   - inode: the userfaultfd's ``inode``.
    ///   - process: a process that may have a copy.
    ///   - served: the features of events that the caller serves.
    /// - Returns: nil if the process has no copy.
    /// - Throws: a ``SystemError`` if this process may not look into the other or copy its descriptors,
    ///   ``HandedDescriptorError`` if the userfaultfd has features that are not served.
    package static func find(
        inode: UInt64,
        in process: borrowing PeerProcess,
        serving served: Features = []
    ) throws -> Userfaultfd? {
        let folder = "/proc/\(process.id)/fd"
        for name in try Directory(folder).names() {
            var status = stat()
            // The process may have closed the descriptor since the folder was listed. The copy is checked below.
            guard let number = CInt(name), fstatat(AT_FDCWD, "\(folder)/\(name)", &status, 0) == 0,
                UInt64(status.st_ino) == inode
            else { continue }
            guard let copy = try Userfaultfd.copy(of: number, in: process),
                Userfaultfd.isUserfaultfd(copy, inode: inode)
            else { continue }
            return try Userfaultfd(handed: copy, serving: served)
        }
        return nil
    }

    private static func copy(of number: CInt, in process: borrowing PeerProcess) throws(SystemError) -> OwnedDescriptor?
    {
        let raw = process.descriptor.raw
        do throws(Errno) {
            return OwnedDescriptor(try kernel(.pidfdGetfd) { shim_pidfd_getfd(raw, number) })
        } catch .badFileDescriptor {
            return nil
        } catch {
            throw SystemError(
                "copy descriptor \(number) of process \(process.id)",
                error,
                advice: "run as root or with CAP_SYS_PTRACE"
            )
        }
    }

    /// Whether a descriptor is the userfaultfd with this inode, and not a file of another file system.
    private static func isUserfaultfd(_ descriptor: borrowing OwnedDescriptor, inode: UInt64) -> Bool {
        // A descriptor of this process can always be inspected.
        guard (try? Userfaultfd.inode(of: descriptor.raw)) == inode else { return false }
        return ProcessFile.text("/proc/self/fdinfo/\(descriptor.raw)")?.contains("\nAPI:") == true
    }
}
