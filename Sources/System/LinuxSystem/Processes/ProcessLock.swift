import CShims
import Glibc
import SystemPackage

/// The exclusive right to act on a process, which leaves no file behind.
///
/// The lock is an advisory flock(2) on `/proc/PID/environ`, so every process that sees the locked process sees the
/// lock. Only the locked process's own user and root can open that file. With a file that every user can read, or a
/// name that every user can create, another user could hold the lock and lock the process's own user out.
package struct ProcessLock: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// Takes the lock without waiting.
    ///
    /// - Throws: a ``SystemError``; if another process has the lock, the error names it as far as the kernel reports
    ///   it.
    package init(of process: borrowing PeerProcess) throws(SystemError) {
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

    /// The process that has the lock, according to /proc/locks: `1: FLOCK  ADVISORY  WRITE 708 00:1a:1234 0 EOF`.
    static func holder(of descriptor: borrowing OwnedDescriptor) -> Int32? {
        var status = stat()
        guard fstat(descriptor.raw, &status) == 0 else { return nil }
        let line = ProcessFile.text("/proc/locks")?.split(separator: "\n").first { line in
            line.contains(" FLOCK ") && line.contains(":\(status.st_ino) ")
        }
        return line?.split(separator: " ").dropFirst(4).first.flatMap { Int32($0) }
    }
}
