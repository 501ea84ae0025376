import CShims
import Glibc
import SystemPackage

/// The right to do something to a process that nobody else has at the same time. It leaves no file behind.
///
/// It is an advisory lock (flock) on the process's own file in /proc: all who see the process there see the lock.
public struct ProcessLock: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Takes the lock without waiting.
    ///
    /// - Throws: that somebody else has it, among others.
    public init(of process: borrowing PeerProcess) throws(SystemError) {
        let path = "/proc/\(process.id)/stat"
        let descriptor = try attempt("lock process \(process.id)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open(path, O_RDONLY | O_CLOEXEC) })
        }
        let raw = descriptor.raw
        _ = try attempt("lock process \(process.id)", advice: "another has it, see: fuser -v \(path)") {
            () throws(Errno) in try kernel(.flock) { orErrno(flock(raw, LOCK_EX | LOCK_NB)) }
        }
        self.descriptor = descriptor
    }
}
