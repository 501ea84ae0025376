import CShims
import Glibc

extension PeerProcess {
    /// What tells a process apart from every other one.
    package struct Identity: Hashable, Sendable {
        private let number: UInt64
        private let isPidfs: Bool

        fileprivate init(number: UInt64, isPidfs: Bool) {
            self.number = number
            self.isPidfs = isPidfs
        }
    }

    /// The magic number of the file system of pidfds since Linux 6.9 (PID_FS_MAGIC).
    private static let pidfs = 0x5049_4446

    /// The process's identity; nil if the process is outside this PID namespace, before Linux 6.9.
    ///
    /// Before Linux 6.9, the identity is the process's number, which a later process may have again.
    package var identity: Identity? {
        var status = stat()
        if shim_file_system(descriptor.raw) == PeerProcess.pidfs, fstat(descriptor.raw, &status) == 0 {
            return Identity(number: UInt64(status.st_ino), isPidfs: true)
        }
        return id > 0 ? Identity(number: UInt64(id), isPidfs: false) : nil
    }
}
