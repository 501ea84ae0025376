#include "CShims.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/openat2.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW // since Linux 6.1; absent from older headers
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

// struct sched_attr of <linux/sched/types.h>, which clashes with <sched.h>. Under SCHED_OTHER, `runtime` is the slice.
struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

#define OR_ERRNO(call) ({ __typeof__(call) result = (call); result < 0 ? -errno : result; })

int shim_userfaultfd(int flags) { return OR_ERRNO((int)syscall(SYS_userfaultfd, flags)); }
int shim_userfaultfd_from_device(int device, int flags) { return OR_ERRNO(ioctl(device, USERFAULTFD_IOC_NEW, flags)); }
int shim_uffdio_api(int uffd, struct uffdio_api *api) { return OR_ERRNO(ioctl(uffd, UFFDIO_API, api)); }
int shim_uffdio_register(int uffd, struct uffdio_register *reg) { return OR_ERRNO(ioctl(uffd, UFFDIO_REGISTER, reg)); }
int shim_uffdio_unregister(int uffd, struct uffdio_range *range) { return OR_ERRNO(ioctl(uffd, UFFDIO_UNREGISTER, range)); }
int shim_uffdio_copy(int uffd, struct uffdio_copy *copy) { return OR_ERRNO(ioctl(uffd, UFFDIO_COPY, copy)); }
int shim_uffdio_zeropage(int uffd, struct uffdio_zeropage *zeropage) { return OR_ERRNO(ioctl(uffd, UFFDIO_ZEROPAGE, zeropage)); }
int shim_uffdio_continue(int uffd, struct uffdio_continue *request) { return OR_ERRNO(ioctl(uffd, UFFDIO_CONTINUE, request)); }
int shim_uffdio_wake(int uffd, struct uffdio_range *range) { return OR_ERRNO(ioctl(uffd, UFFDIO_WAKE, range)); }

int shim_ioctl(int descriptor, unsigned long request, unsigned long argument) { return OR_ERRNO(ioctl(descriptor, request, argument)); }

int shim_open(const char *path, int flags) { return OR_ERRNO(open(path, flags)); }
int shim_openat(int directory, const char *path, int flags, mode_t mode) { return OR_ERRNO(openat(directory, path, flags, mode)); }
int shim_open_place(const char *path, int flags) { return OR_ERRNO(open(path, O_PATH | O_CLOEXEC | flags)); }
int shim_open_place_beneath(int directory, const char *path) { return OR_ERRNO((int)syscall(SYS_openat2, directory, path, &(struct open_how){.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS}, sizeof(struct open_how))); }
int shim_open_entry(int directory, const char *name, int flags) { return OR_ERRNO(openat(directory, name, O_PATH | O_CLOEXEC | flags)); }
long shim_file_system(int descriptor) { struct statfs status; return fstatfs(descriptor, &status) < 0 ? -errno : (long)status.f_type; }
int shim_compare_files(int one, int other) { return OR_ERRNO((int)syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, one, other)); }
ssize_t shim_getdents64(int directory, void *entries, size_t length) { return OR_ERRNO(getdents64(directory, entries, length)); }
int shim_set_lease_signal(int descriptor, int signal) { return OR_ERRNO(fcntl(descriptor, F_SETSIG, signal)); }
int shim_set_lease(int descriptor, int type) { return OR_ERRNO(fcntl(descriptor, F_SETLEASE, type)); }
int shim_lock_file(int descriptor, int type) { return OR_ERRNO(fcntl(descriptor, F_OFD_SETLK, &(struct flock){.l_type = type, .l_whence = SEEK_SET})); }
int shim_pipe(int ends[2]) { return OR_ERRNO(pipe2(ends, O_CLOEXEC)); }
int shim_punch_hole(int descriptor, off_t offset, off_t length) { return OR_ERRNO(fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)); }
ssize_t shim_read_process(int process, uint64_t address, void *buffer, size_t length) { return OR_ERRNO(process_vm_readv(process, &(struct iovec){buffer, length}, 1, &(struct iovec){(void *)(uintptr_t)address, length}, 1, 0)); }
int shim_pidfd_open(int process) { return OR_ERRNO((int)syscall(SYS_pidfd_open, process, 0)); }
int shim_pidfd_getfd(int process, int descriptor) { return OR_ERRNO((int)syscall(SYS_pidfd_getfd, process, descriptor, 0)); }
int shim_pidfd_send_signal(int process, int signal) { return OR_ERRNO((int)syscall(SYS_pidfd_send_signal, process, signal, NULL, 0)); }
int shim_spawn_close_from(posix_spawn_file_actions_t *actions, int first) { return -posix_spawn_file_actions_addclosefrom_np(actions, first); }
int shim_adopt_orphans(void) { return OR_ERRNO(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }
int shim_fork_orphan(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    pid_t between = fork();
    if (between == 0) {
        pid_t copy = fork();
        if (copy != 0) {
            int number = copy < 0 ? -errno : copy;
            _exit(write(ends[1], &number, sizeof number) != sizeof number);
        }
        close(ends[0]);
        close(ends[1]);
        return 0;
    }
    int number = between < 0 ? -errno : -ECHILD;
    close(ends[1]);
    if (between > 0) {
        // The copy has its new parent once this wait is over.
        while (waitpid(between, NULL, 0) < 0 && errno == EINTR) continue;
        if (read(ends[0], &number, sizeof number) != sizeof number) number = -ECHILD;
    }
    close(ends[0]);
    return number;
}
void shim_set_arguments(const char *words, size_t length, size_t room) {
    memset(program_invocation_name, 0, room);
    memcpy(program_invocation_name, words, length < room ? length : room - 1);
}
char **shim_environment(void) { return environ; }
int shim_set_thread_name(const char *name) { return -pthread_setname_np(pthread_self(), name); }
int shim_map_allocations_from(int bytes) { return mallopt(M_MMAP_THRESHOLD, bytes); }

int shim_set_slice(uint64_t nanoseconds) { return sched_getscheduler(0) != SCHED_OTHER ? 0 : OR_ERRNO((int)syscall(SYS_sched_setattr, 0, &(struct sched_attributes){.size = sizeof(struct sched_attributes), .flags = 1 /* SCHED_FLAG_RESET_ON_FORK */, .nice = getpriority(PRIO_PROCESS, 0), .runtime = nanoseconds}, 0)); }
int shim_set_timer_slack(unsigned long nanoseconds) { return OR_ERRNO(prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)); }
int shim_ppoll(void *descriptors, unsigned long count, uint64_t nanoseconds) { return OR_ERRNO(ppoll(descriptors, count, &(struct timespec){.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)}, NULL)); }
int shim_memfd_create(const char *name, unsigned log2_huge_page) { return OR_ERRNO(memfd_create(name, MFD_CLOEXEC | (log2_huge_page ? MFD_HUGETLB | log2_huge_page << MAP_HUGE_SHIFT : 0))); }
int shim_eventfd(void) { return OR_ERRNO(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
int shim_set_nonblocking(int descriptor) { return OR_ERRNO(fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)); }
int shim_set_close_on_exec(int descriptor) { return OR_ERRNO(fcntl(descriptor, F_SETFD, FD_CLOEXEC)); }
int shim_accept4(int listener, int flags) { return OR_ERRNO(accept4(listener, NULL, NULL, flags)); }

int shim_file_locker(int descriptor) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result = fcntl(descriptor, F_OFD_GETLK, &lock);
    if (result < 0) return -errno;
    return lock.l_type != F_UNLCK && lock.l_pid > 0 ? lock.l_pid : 0;
}

int shim_child_end(int process, int *signal) {
    siginfo_t info = {0};
    int result = waitid(P_PID, process, &info, WEXITED | WNOWAIT);
    if (result < 0) return -errno;
    *signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
    return info.si_status;
}

enum { MAX_DESCRIPTORS = 17 };

ssize_t shim_send_descriptors(int socket, const void *data, size_t length, const int *descriptors, int count) {
    if (count < 1 || count > MAX_DESCRIPTORS) return -EINVAL;
    union { struct cmsghdr header; char space[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))]; } control = {0};
    struct iovec bytes = {.iov_base = (void *)data, .iov_len = length};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
    memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
    return OR_ERRNO(sendmsg(socket, &message, MSG_NOSIGNAL));
}

ssize_t shim_receive_descriptors(int socket, void *data, size_t length, int *descriptors, int capacity, int *count, int *is_cut) {
    union { struct cmsghdr header; char space[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))]; } control;
    struct iovec bytes = {.iov_base = data, .iov_len = length};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t received = OR_ERRNO(recvmsg(socket, &message, MSG_CMSG_CLOEXEC));
    *count = 0;
    *is_cut = received >= 0 && (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *h = received < 0 ? NULL : CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(h) + i * sizeof(int), sizeof descriptor);
            if (*count < capacity) descriptors[(*count)++] = descriptor; else close(descriptor);
        }
    }
    return received;
}

int shim_peer_pidfd(int socket) {
    int descriptor = -1;
    socklen_t length = sizeof descriptor;
    int result = getsockopt(socket, SOL_SOCKET, 77, &descriptor, &length); // SO_PEERPIDFD
    return result < 0 ? -errno : descriptor;
}

int shim_peer_process(int socket) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    int result = getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    return result < 0 ? -errno : peer.pid;
}

int shim_peer_user(int socket) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    int result = getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    return result < 0 ? -errno : (int)peer.uid;
}

static struct sockaddr_un unix_address(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    return address;
}

int shim_bind_unix(int socket, const char *path) {
    struct sockaddr_un address = unix_address(path);
    return OR_ERRNO(bind(socket, (struct sockaddr *)&address, sizeof address));
}

int shim_connect_unix(int socket, const char *path) {
    struct sockaddr_un address = unix_address(path);
    return OR_ERRNO(connect(socket, (struct sockaddr *)&address, sizeof address));
}
