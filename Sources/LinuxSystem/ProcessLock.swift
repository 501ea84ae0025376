import CShims
import Glibc
import SystemPackage

/// The right to do something to a process that nobody else has at the same time. No file is left behind.
///
/// The lock is advisory (flock), on `/proc/PID/environ`: every process that sees the other one sees the lock. Only the
/// process's own user and root can open that file. A file that everybody can read, or a name that everybody can make,
/// would let another user hold the lock and keep the process's own user from it.
public struct ProcessLock: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Takes the lock without waiting.
    ///
    /// - Throws: that somebody else has it, among others.
    public init(of process: borrowing PeerProcess) throws(SystemError) {
        let path = "/proc/\(process.id)/environ"
        let descriptor = try attempt("lock process \(process.id)") { () throws(Errno) in
            OwnedDescriptor(try kernel(.open) { shim_open(path, O_RDONLY | O_CLOEXEC) })
        }
        let raw = descriptor.raw
        do throws(Errno) {
            _ = try kernel(.flock) { orErrno(flock(raw, LOCK_EX | LOCK_NB)) }
        } catch {
            let holder = ProcessLock.holder(of: descriptor).map { "process \($0) has it" }
            throw SystemError("lock process \(process.id)", error, advice: holder ?? "another process has it")
        }
        self.descriptor = descriptor
    }

    /// Who has the lock, as /proc/locks says: `1: FLOCK  ADVISORY  WRITE 708 00:1a:1234 0 EOF`.
    private static func holder(of descriptor: borrowing OwnedDescriptor) -> Int32? {
        var status = stat()
        guard fstat(descriptor.raw, &status) == 0 else { return nil }
        let line = ProcessFile.text("/proc/locks")?.split(separator: "\n").first { line in
            line.contains(" FLOCK ") && line.contains(":\(status.st_ino) ")
        }
        return line?.split(separator: " ").dropFirst(4).first.flatMap { Int32($0) }
    }
}
