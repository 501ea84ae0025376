import Glibc
import LinuxSystem
import Synchronization

/// A foreign process's lock on a disk image, taken as soon as the image is free.
final class DiskTaker: Sendable {
    private struct State {
        var isWanted = true
        /// The open file that has the lock.
        var descriptor: CInt?
    }

    private let state = Mutex(State())
    private let threads = ThreadGroup()

    /// Waits for the image, and locks it.
    func take(_ path: String) throws {
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw TestFailure("cannot open \(path): errno \(errno)") }
        try threads.run("take-disk") { [self] in
            // F_OFD_SETLKW: returns when the owner releases the lock, at the latest when both agents have exited.
            var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
            let result = fcntl(descriptor, 38, &lock)
            let isKept = state.withLock { state in
                guard state.isWanted, result == 0 else { return false }
                state.descriptor = descriptor
                return true
            }
            if !isKept { DiskTaker.letGo(descriptor) }
        }
    }

    /// Releases the lock, and takes it no more.
    func free() {
        let descriptor = state.withLock { state in
            state.isWanted = false
            return state.descriptor.take()
        }
        if let descriptor { DiskTaker.letGo(descriptor) }
    }

    private static func letGo(_ descriptor: CInt) {
        // F_OFD_SETLK: closing is not enough, since a child that has not yet called exec holds a copy of the
        // descriptor.
        var lock = flock(l_type: Int16(F_UNLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
        _ = fcntl(descriptor, 37, &lock)
        close(descriptor)
    }
}
