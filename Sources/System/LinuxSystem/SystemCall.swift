import Glibc
import SystemPackage

/// The kernel calls that this module makes; errors name them, and tests inject failures by them.
package enum SystemCall: String, Sendable, Hashable {
    case accept4, bind, connect
    case epollControl = "epoll_ctl", epollCreate = "epoll_create1", epollWait = "epoll_wait", eventfd
    case fork
    case fallocate, fchmod, fchmodat, fchownat, fcntl, flock, fstat, fstatat, fsync, ftruncate, getdents64, getpeername,
        getsockname
    case getrlimit, getsockopt, inotifyAddWatch = "inotify_add_watch", inotifyInit = "inotify_init1", kcmp, kill
    case linkat, listen, lseek, lstat, madvise, mincore
    case memfdCreate = "memfd_create", mkdirat, mlock, mmap, munmap, open, openat, openat2
    case pidfdGetfd = "pidfd_getfd", pidfdOpen = "pidfd_open", pidfdSendSignal = "pidfd_send_signal", pipe2, poll
    case posixFadvise = "posix_fadvise", posixFallocate = "posix_fallocate", posixSpawn = "posix_spawn", prctl, pread
    case processVMReadv = "process_vm_readv", pwrite, read, readlinkat, recv, recvmsg, renameat, send, sendmsg
    case setrlimit, setsockopt, shutdown, socket, socketpair, unlink, unlinkat, userfaultfd, waitid, waitpid, write
    case uffdioAPI = "UFFDIO_API", uffdioRegister = "UFFDIO_REGISTER", uffdioUnregister = "UFFDIO_UNREGISTER"
    case kvmCheckExtension = "KVM_CHECK_EXTENSION", kvmCreate = "KVM_CREATE_…", kvmGet = "KVM_GET_…"
    case kvmSet = "KVM_SET_…", kvmRun = "KVM_RUN"
    case uffdioCopy = "UFFDIO_COPY", uffdioZeropage = "UFFDIO_ZEROPAGE", uffdioWake = "UFFDIO_WAKE"
    case uffdioContinue = "UFFDIO_CONTINUE"
}

/// Makes a kernel call; every call whose error this module reports goes through this function.
///
/// EINTR is retried. EBADF and EFAULT on this program's own objects are bugs, and trap.
///
/// - Parameters:
///   - isForeign: whether the call reaches memory that another process can take away. EFAULT is then thrown.
///   - body: makes the call, and returns its result or `-errno`.
@inline(__always)
func kernel<Result: FixedWidthInteger & SignedInteger>(
    _ call: SystemCall,
    isForeign: Bool = false,
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
        precondition(
            errno != .badFileDescriptor && (isForeign || errno != .badAddress),
            "\(call.rawValue): \(errno)"
        )
        throw errno
    }
}

/// Turns a libc result into the form that `kernel` takes: the result itself, or `-errno`.
@inline(__always)
func orErrno<Result: FixedWidthInteger & SignedInteger>(_ result: Result) -> Result {
    result < 0 ? -Result(Glibc.errno) : result
}
