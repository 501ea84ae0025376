import CShims
import Glibc
import SystemPackage

/// Tells whether anybody could have written to a file since the witness was made.
///
/// A write needs a descriptor that was opened for writing, or a mapping that was made with one. The kernel reports the
/// close of the last copy of such a descriptor (inotify's IN_CLOSE_WRITE), and grants a read lease only while none is
/// open (F_SETLEASE). So if no close was reported and a lease is granted, there was no writer at all. A file that is
/// cut by its path is reported too (IN_MODIFY).
///
/// Only local file systems are trusted: on others, another host can write without this kernel's knowledge.
final class WriterWitness: Sendable {
    /// The queue of events, which is never read: the first event ends the proof for good.
    private let events: OwnedDescriptor

    /// The file systems that only this kernel writes to, by their magic numbers in statfs(2).
    private static let local: Set<Int> = [
        0xEF53,  // ext2, ext3, ext4
        0x5846_5342,  // XFS
        0x9123_683E,  // Btrfs
        0xF2F5_2010,  // F2FS
        0x2FC1_2FC1,  // ZFS
        0x0102_1994,  // tmpfs
    ]

    /// Begins to watch an open file; nil if the kernel cannot tell who writes to it.
    init?(of file: borrowing OwnedDescriptor) {
        let raw = file.raw
        // An error is a negative number, which is no file system's.
        guard WriterWitness.local.contains(shim_file_system(raw)) else { return nil }
        let flags = CInt(IN_CLOEXEC | IN_NONBLOCK)
        // Without a witness, the caller needs another proof.
        guard let queue = try? kernel(.inotifyInit, { orErrno(inotify_init1(flags)) }) else { return nil }
        events = OwnedDescriptor(queue)
        // The link is that of the open file, whatever its path names by now.
        let link = "/proc/self/fd/\(raw)"
        // Without a watch, there is no witness.
        let watch = try? kernel(.inotifyAddWatch) {
            orErrno(inotify_add_watch(queue, link, UInt32(IN_CLOSE_WRITE | IN_MODIFY)))
        }
        if watch == nil { return nil }
    }

    /// Whether the kernel proves that nobody has written to the file up to this call.
    ///
    /// - Parameter file: the file that the witness was made of, open for reading only.
    func sawNoWriter(to file: borrowing OwnedDescriptor) -> Bool {
        // A writer's close is reported before the kernel grants a lease, so the events come second.
        guard WriterWitness.hasNoWriter(file.raw) else { return false }
        var queue = pollfd(fd: events.raw, events: Int16(POLLIN), revents: 0)
        // poll(2) fails here only for want of kernel memory; there is no proof then.
        return (try? kernel(.poll) { orErrno(poll(&queue, 1, 0)) }) == 0
    }

    /// Whether the kernel grants a read lease, which it does while the file is not open for writing anywhere.
    ///
    /// The lease is held for a moment only, in which whoever opens the file for writing waits.
    private static func hasNoWriter(_ file: CInt) -> Bool {
        // If a process opens the file for writing during the lease, the kernel sends a signal. The default signal,
        // SIGIO, would end this process; SIGURG is ignored. If the signal cannot be chosen, no lease is taken.
        guard (try? kernel(.fcntl) { shim_set_lease_signal(file, SIGURG) }) != nil else { return false }
        // A file system without leases, or a file of another user, gives no proof.
        guard (try? kernel(.fcntl) { shim_set_lease(file, CInt(F_RDLCK)) }) != nil else { return false }
        // Dropping a lease that is held cannot fail.
        _ = try? kernel(.fcntl) { shim_set_lease(file, CInt(F_UNLCK)) }
        return true
    }
}
