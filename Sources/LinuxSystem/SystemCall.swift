import Glibc
import SystemPackage

/// The kernel calls this module makes. Errors name them, and tests inject failures by them.
package enum SystemCall: String, Sendable, Hashable {
    case accept4, bind, connect
    case epollControl = "epoll_ctl", epollCreate = "epoll_create1", epollWait = "epoll_wait", eventfd, fchmod, fcntl,
        fstat, fsync, ftruncate, getdents64, getpeername, getsockname
    case getsockopt, kill, linkat, listen, lseek, lstat, madvise, mincore
    case memfdCreate = "memfd_create", mkdirat, mmap, munmap, open, openat
    case pidfdOpen = "pidfd_open", pipe2, poll, posixFadvise = "posix_fadvise",
        posixSpawn = "posix_spawn", pread, read, recv, recvmsg, send, sendmsg
    case setsockopt, shutdown, socket, unlink, unlinkat, userfaultfd, waitid, waitpid, write
    case uffdioAPI = "UFFDIO_API", uffdioRegister = "UFFDIO_REGISTER", uffdioUnregister = "UFFDIO_UNREGISTER"
    case uffdioCopy = "UFFDIO_COPY", uffdioZeropage = "UFFDIO_ZEROPAGE", uffdioWake = "UFFDIO_WAKE"
}

/// Enters the kernel: every call of this module passes here and nowhere else.
///
/// EINTR is retried. EBADF and EFAULT on our own objects are bugs of this program and trap.
///
/// - Parameter body: makes the call and returns its result, or `-errno`.
@inline(__always)
func kernel<Result: FixedWidthInteger & SignedInteger>(
    _ call: SystemCall,
    _ body: () -> Result
) throws(Errno) -> Result {
    while true {
        #if DEBUG
        let result = ForcedErrno.take(call).map { -Result($0.rawValue) } ?? body()
        #else
        let result = body()
        #endif
        if result >= 0 { return result }
        let errno = Errno(rawValue: CInt(-result))
        if errno == .interrupted { continue }
        precondition(errno != .badFileDescriptor && errno != .badAddress, "\(call.rawValue): \(errno)")
        throw errno
    }
}

/// Turns a libc result into the form `kernel` takes: the result itself, or `-errno`.
@inline(__always)
func orErrno<Result: FixedWidthInteger & SignedInteger>(_ result: Result) -> Result {
    result < 0 ? -Result(Glibc.errno) : result
}
