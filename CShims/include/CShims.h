// Kernel calls that Swift cannot make by itself. Each function makes one call, and returns its result or -errno, so
// that no other code can run between the call and the reading of errno.
#ifndef PAGEFERRY_CSHIMS_H
#define PAGEFERRY_CSHIMS_H

#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

_Static_assert(sizeof(struct uffd_msg) == 32, "the fault loop reads arrays of 32-byte messages");

/// SYS_userfaultfd is a macro that is not imported.
int shim_userfaultfd(int flags);
/// USERFAULTFD_IOC_NEW is a macro with arguments, and ioctl is variadic.
int shim_userfaultfd_from_device(int device, int flags);
/// UFFDIO_API is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_api(int uffd, struct uffdio_api *api);
/// UFFDIO_REGISTER is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_register(int uffd, struct uffdio_register *reg);
/// UFFDIO_UNREGISTER is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_unregister(int uffd, struct uffdio_range *range);
/// UFFDIO_COPY is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_copy(int uffd, struct uffdio_copy *copy);
/// UFFDIO_ZEROPAGE is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_zeropage(int uffd, struct uffdio_zeropage *zeropage);
/// UFFDIO_CONTINUE is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_continue(int uffd, struct uffdio_continue *request);
/// UFFDIO_WAKE is a macro with a type argument, and ioctl is variadic.
int shim_uffdio_wake(int uffd, struct uffdio_range *range);

/// KVM's requests are macros with a type argument, and ioctl is variadic. `argument` is a number or an address.
int shim_ioctl(int descriptor, unsigned long request, unsigned long argument);

static const unsigned long shim_kvm_get_api_version = KVM_GET_API_VERSION;
static const unsigned long shim_kvm_check_extension = KVM_CHECK_EXTENSION;
static const unsigned long shim_kvm_get_vcpu_mmap_size = KVM_GET_VCPU_MMAP_SIZE;
static const unsigned long shim_kvm_get_supported_cpuid = KVM_GET_SUPPORTED_CPUID;
static const unsigned long shim_kvm_get_msr_index_list = KVM_GET_MSR_INDEX_LIST;
static const unsigned long shim_kvm_create_vm = KVM_CREATE_VM;
static const unsigned long shim_kvm_set_tss_addr = KVM_SET_TSS_ADDR;
static const unsigned long shim_kvm_set_user_memory_region = KVM_SET_USER_MEMORY_REGION;
static const unsigned long shim_kvm_create_irqchip = KVM_CREATE_IRQCHIP;
static const unsigned long shim_kvm_get_irqchip = KVM_GET_IRQCHIP;
static const unsigned long shim_kvm_set_irqchip = KVM_SET_IRQCHIP;
static const unsigned long shim_kvm_get_clock = KVM_GET_CLOCK;
static const unsigned long shim_kvm_set_clock = KVM_SET_CLOCK;
static const unsigned long shim_kvm_create_vcpu = KVM_CREATE_VCPU;
static const unsigned long shim_kvm_set_cpuid2 = KVM_SET_CPUID2;
static const unsigned long shim_kvm_run = KVM_RUN;
static const unsigned long shim_kvm_get_regs = KVM_GET_REGS;
static const unsigned long shim_kvm_set_regs = KVM_SET_REGS;
static const unsigned long shim_kvm_get_sregs = KVM_GET_SREGS;
static const unsigned long shim_kvm_set_sregs = KVM_SET_SREGS;
static const unsigned long shim_kvm_get_debugregs = KVM_GET_DEBUGREGS;
static const unsigned long shim_kvm_set_debugregs = KVM_SET_DEBUGREGS;
static const unsigned long shim_kvm_get_xsave2 = KVM_GET_XSAVE2;
static const unsigned long shim_kvm_set_xsave = KVM_SET_XSAVE;
static const unsigned long shim_kvm_get_xcrs = KVM_GET_XCRS;
static const unsigned long shim_kvm_set_xcrs = KVM_SET_XCRS;
static const unsigned long shim_kvm_get_lapic = KVM_GET_LAPIC;
static const unsigned long shim_kvm_set_lapic = KVM_SET_LAPIC;
static const unsigned long shim_kvm_get_vcpu_events = KVM_GET_VCPU_EVENTS;
static const unsigned long shim_kvm_set_vcpu_events = KVM_SET_VCPU_EVENTS;
static const unsigned long shim_kvm_get_mp_state = KVM_GET_MP_STATE;
static const unsigned long shim_kvm_set_mp_state = KVM_SET_MP_STATE;
static const unsigned long shim_kvm_get_msrs = KVM_GET_MSRS;
static const unsigned long shim_kvm_set_msrs = KVM_SET_MSRS;

/// A struct kvm_msrs of one entry. Its flexible array member is not imported.
struct shim_kvm_msr {
    __u32 count, padding;
    struct kvm_msr_entry entry;
};
_Static_assert(offsetof(struct shim_kvm_msr, entry) == sizeof(struct kvm_msrs), "the kernel reads one as the other");
_Static_assert(sizeof(struct kvm_cpuid2) == 8 && sizeof(struct kvm_cpuid_entry2) == 40, "read as bytes");
_Static_assert(sizeof(struct kvm_msr_list) == 4, "read as words of 4 bytes");

/// open is variadic.
int shim_open(const char *path, int flags);
/// openat is variadic.
int shim_openat(int directory, const char *path, int flags, mode_t mode);
/// O_PATH is hidden behind _GNU_SOURCE. Opens the place that a path names, which neither reads nor writes nor waits.
int shim_open_place(const char *path, int flags);
/// openat2 has no wrapper. Opens the place that a path names, unless `..` or a link in the path leads out of the
/// directory.
int shim_open_place_beneath(int directory, const char *path);
/// openat is variadic, and O_PATH is hidden behind _GNU_SOURCE. Opens an entry of a directory as shim_open_place does.
int shim_open_entry(int directory, const char *name, int flags);
/// The Glibc module lacks sys/vfs.h. Returns the magic number of the file system that holds an open file.
long shim_file_system(int descriptor);
/// kcmp has no wrapper. Returns 0 if two descriptors of this process stand for the same open file.
int shim_compare_files(int one, int other);
/// getdents64 is hidden behind _GNU_SOURCE.
ssize_t shim_getdents64(int directory, void *entries, size_t length);
/// fcntl is variadic, and F_SETSIG is hidden behind _GNU_SOURCE. Chooses the signal of a lease that is in the way.
int shim_set_lease_signal(int descriptor, int signal);
/// fcntl is variadic, and F_SETLEASE is hidden behind _GNU_SOURCE. `type` is F_RDLCK or F_UNLCK.
int shim_set_lease(int descriptor, int type);
/// fcntl is variadic, and F_OFD_SETLK is hidden behind _GNU_SOURCE. `type` is F_WRLCK or F_UNLCK, for the whole file.
int shim_lock_file(int descriptor, int type);
/// fcntl is variadic, and F_OFD_GETLK is hidden behind _GNU_SOURCE. Returns the process whose lock is in the way, or 0
/// if there is none or the kernel does not say.
int shim_file_locker(int descriptor);
/// pipe2 is hidden behind _GNU_SOURCE. Both ends are close-on-exec.
int shim_pipe(int ends[2]);
/// fallocate is hidden behind _GNU_SOURCE. Frees a part of a file, which keeps its size.
int shim_punch_hole(int descriptor, off_t offset, off_t length);
/// process_vm_readv is hidden behind _GNU_SOURCE.
ssize_t shim_read_process(int process, uint64_t address, void *buffer, size_t length);
/// glibc before 2.36 lacks pidfd_open, and SYS_pidfd_open is a macro that is not imported.
int shim_pidfd_open(int process);
/// glibc before 2.36 lacks pidfd_getfd, and SYS_pidfd_getfd is a macro that is not imported. The copy is close-on-exec.
int shim_pidfd_getfd(int process, int descriptor);
/// glibc before 2.36 lacks pidfd_send_signal, and SYS_pidfd_send_signal is a macro that is not imported.
int shim_pidfd_send_signal(int process, int signal);
/// si_status is a macro. Waits for a child to end, without reaping it. `*signal` becomes the signal that killed the
/// child, or 0 if the child exited; the result is then its exit status.
int shim_child_end(int process, int *signal);
/// posix_spawn_file_actions_addclosefrom_np is hidden behind _GNU_SOURCE.
int shim_spawn_close_from(posix_spawn_file_actions_t *actions, int first);
/// fork is unavailable in Swift, since a copy of a process has only one of its threads: call this in a process that has no
/// other. Returns 0 in the copy, and the copy's number in the caller. The copy is no child of the caller, but of the next
/// ancestor that adopts orphans.
int shim_fork_orphan(void);
/// prctl is variadic. Makes this process the parent of descendants whose parent has exited.
int shim_adopt_orphans(void);
/// program_invocation_name is a mutable global variable. Replaces the `room` bytes of this process's arguments, which
/// `ps` shows, with `length` bytes, at most `room`.
void shim_set_arguments(const char *words, size_t length, size_t room);
/// environ is a mutable global variable, which Swift rejects as unsafe.
char **shim_environment(void);
/// pthread_setname_np of glibc is hidden behind _GNU_SOURCE.
int shim_set_thread_name(const char *name);
/// sched_setattr has no wrapper in older glibc. Sets the calling thread's slice if its policy is SCHED_OTHER.
/// Threads that the calling thread creates have the kernel's slice again.
int shim_set_slice(uint64_t nanoseconds);
/// prctl has variadic arguments. Sets the calling thread's timer slack.
int shim_set_timer_slack(unsigned long nanoseconds);
/// ppoll is hidden behind _GNU_SOURCE. `descriptors` are `count` structs pollfd; waits for at most `nanoseconds`.
int shim_ppoll(void *descriptors, unsigned long count, uint64_t nanoseconds);

/// The Glibc module lacks <malloc.h>. Allocations of this many bytes and more get mappings of their own.
int shim_map_allocations_from(int bytes);
/// memfd_create is hidden behind _GNU_SOURCE. The descriptor is close-on-exec. `log2_huge_page` is 0 for small pages.
int shim_memfd_create(const char *name, unsigned log2_huge_page);
/// The Glibc module lacks sys/eventfd.h. The descriptor is close-on-exec and non-blocking.
int shim_eventfd(void);
/// fcntl is variadic. Sets O_NONBLOCK.
int shim_set_nonblocking(int descriptor);
/// fcntl is variadic. Sets FD_CLOEXEC.
int shim_set_close_on_exec(int descriptor);
/// accept4 is hidden behind _GNU_SOURCE.
int shim_accept4(int listener, int flags);

/// CMSG_FIRSTHDR and its family are macros. Sends `data` with 1 to 17 descriptors.
ssize_t shim_send_descriptors(int socket, const void *data, size_t length, const int *descriptors, int count);
/// CMSG_FIRSTHDR and its family are macros. Receives `data` with up to `capacity` descriptors, at most 17,
/// close-on-exec. `*count` becomes the number of descriptors received, at most `capacity`; the rest are closed. `*is_cut`
/// becomes 1 if the kernel has discarded descriptors.
ssize_t shim_receive_descriptors(int socket, void *data, size_t length, int *descriptors, int capacity, int *count, int *is_cut);
/// struct ucred is hidden behind _GNU_SOURCE. Returns the process at the other end.
int shim_peer_process(int socket);
/// struct ucred is hidden behind _GNU_SOURCE. Returns the effective user at the other end.
int shim_peer_user(int socket);
/// SO_PEERPIDFD, since Linux 6.5, is absent from older headers. Returns a pidfd of the process at the other end.
int shim_peer_pidfd(int socket);

/// bind takes the address of a sockaddr_un as that of another struct type.
int shim_bind_unix(int socket, const char *path);
/// connect takes the address of a sockaddr_un as that of another struct type.
int shim_connect_unix(int socket, const char *path);

#endif
