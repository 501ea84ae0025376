// What Swift cannot call by itself. Each function is one kernel call: it returns the result, or -errno,
// so that no other code can run between the call and the reading of errno.
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

/// A struct kvm_msrs of one entry, whose array of no fixed length is not imported.
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
/// O_PATH is hidden behind _GNU_SOURCE. Opens as a place only, which neither reads nor writes nor waits.
int shim_open_place(const char *path, int flags);
/// openat2 has no wrapper. Opens as a place what lies under a directory, whatever the path and its links say.
int shim_open_place_beneath(int directory, const char *path);
/// getdents64 is hidden behind _GNU_SOURCE.
ssize_t shim_getdents64(int directory, void *entries, size_t length);
/// fcntl is variadic, and F_OFD_SETLK is hidden behind _GNU_SOURCE. `type` is F_WRLCK or F_UNLCK, of the whole file.
int shim_lock_file(int descriptor, int type);
/// As above for F_OFD_GETLK: the process whose lock is in the way, 0 if there is none or the kernel does not tell.
int shim_file_locker(int descriptor);
/// pipe2 is hidden behind _GNU_SOURCE. Both ends are close-on-exec.
int shim_pipe(int ends[2]);
/// glibc before 2.36 lacks pidfd_open, and SYS_pidfd_open is a macro that is not imported.
int shim_pidfd_open(int process);
/// glibc before 2.36 lacks pidfd_send_signal, and SYS_pidfd_send_signal is a macro that is not imported.
int shim_pidfd_send_signal(int process, int signal);
/// si_status is a macro. Waits for a child without reaping it: returns its status, or sets `*signal` if one ended it.
int shim_child_end(int process, int *signal);
/// posix_spawn_file_actions_addclosefrom_np is hidden behind _GNU_SOURCE.
int shim_spawn_close_from(posix_spawn_file_actions_t *actions, int first);
/// environ is a variable that Swift takes for unsafe.
char **shim_environment(void);
/// pthread_setname_np of glibc is hidden behind _GNU_SOURCE.
int shim_set_thread_name(const char *name);
int shim_set_slice(uint64_t nanoseconds);

/// <malloc.h> is no part of the module Glibc.
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

/// CMSG_FIRSTHDR and its family are macros: up to 17 descriptors travel with the bytes of `data`.
ssize_t shim_send_descriptors(int socket, const void *data, size_t length, const int *descriptors, int count);
/// CMSG_FIRSTHDR and its family are macros: up to `capacity` descriptors, at most 17, are taken in, close-on-exec.
/// `*count` becomes the number of descriptors in the message, at most `capacity`; the rest are closed.
ssize_t shim_receive_descriptors(int socket, void *data, size_t length, int *descriptors, int capacity, int *count);
/// struct ucred is hidden behind _GNU_SOURCE.
int shim_peer_process(int socket);
/// As above: the effective user at the other end.
int shim_peer_user(int socket);
/// SO_PEERPIDFD, since Linux 6.5, is absent from older headers.
int shim_peer_pidfd(int socket);

/// The address of sockaddr_un and sockaddr_in is passed as another struct type, and htons is a macro.
int shim_bind_unix(int socket, const char *path);
int shim_connect_unix(int socket, const char *path);

#endif
