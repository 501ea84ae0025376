// A virtual machine monitor of one vCPU, whose guest moves from host to host while it runs. Everything that it knows of
// migration is in pageferry_client.h: look for `struct pf`.
//
//   cc -O2 -pthread vmm.c ../../Sources/Guests/KVMGuestCode/guest.S -o vmm
//   ./vmm SOCKET runs MIB              boots a guest, and attaches it to `pageferry source --attach SOCKET`
//   ./vmm SOCKET waits MIB [broken]    waits at `pageferry destination --attach SOCKET`; broken: does not load a state
//
// The guest, guest.S, writes and checks all of its memory in passes. On standard output: `pass N` at most 20 times a
// second, and a line for each step of a move.
#define _GNU_SOURCE
#include "pageferry_client.h"
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

// guest.S: the guest's code, and the one instruction at which edi and ebp belong to different passes.
extern const uint8_t pageferry_guest_code[], pageferry_guest_code_turn[], pageferry_guest_code_end[];

enum { PAGE = 4096, BLOCK = PAGE, FIRST = 2, LAST = 4092, STEP = 0x9e3779b1, SERIAL = 0x3f8, MARK = 'a' };

static int kvm, machine, vcpu;
static struct kvm_run *shared;       // what the kernel shares of the vCPU
static uint8_t *memory;              // the guest's memory, from its address 0 on
static uint32_t page_count;
static uint64_t pass;                // the state of the serial port: the passes that the guest has completed
static struct kvm_msr_list *numbers; // of the MSRs that belong to the vCPU's state
static int is_broken;
static pthread_t thread;             // runs the vCPU

static void say(const char *what) {
    printf("%s\n", what);
    fflush(stdout);
}

static void die(const char *what) {
    fprintf(stderr, "vmm: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int control(int fd, unsigned long request, void *argument, const char *what) {
    int result = ioctl(fd, request, argument);
    if (result < 0) die(what);
    return result;
}

// ---- The machine

// Makes a virtual machine with an interrupt chip, and with a vCPU whose registers are not set yet.
static void make_machine(void) {
    struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = {.head = {.nent = 256}};
    struct kvm_userspace_memory_region slot = {.memory_size = (uint64_t)page_count * PAGE};
    slot.userspace_addr = (uintptr_t)memory;
    if ((kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0) die("/dev/kvm");
    machine = control(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
    control(machine, KVM_SET_TSS_ADDR, (void *)0xfffbd000, "KVM_SET_TSS_ADDR");
    control(machine, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
    control(machine, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
    vcpu = control(machine, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
    control(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid, "KVM_GET_SUPPORTED_CPUID");
    control(vcpu, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
    size_t size = control(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
    shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (shared == MAP_FAILED) die("the vCPU's page");
    numbers = calloc(1, sizeof *numbers + 1024 * sizeof numbers->indices[0]);
    numbers->nmsrs = 1024;
    control(kvm, KVM_GET_MSR_INDEX_LIST, numbers, "KVM_GET_MSR_INDEX_LIST");
}

static uint8_t filling(size_t byte) { return byte * 31 ^ byte >> 8; }

static void set_segment(struct kvm_segment *segment, int type, int selector) {
    *segment = (struct kvm_segment){.limit = 0xffffffff, .present = 1, .db = 1, .s = 1, .g = 1};
    segment->type = type, segment->selector = selector;
}

// Fills the guest's memory as after a pass with the key 0, and sets the registers with which guest.S begins.
static void boot(void) {
    uint32_t block[4] = {FIRST * PAGE, page_count * PAGE, 0xfee00080, MARK};  // START, END, PRIORITY: of the APIC, MARK
    struct kvm_sregs special;
    struct kvm_regs general = {.rbx = BLOCK, .rflags = 2};
    memcpy(memory, pageferry_guest_code, pageferry_guest_code_end - pageferry_guest_code);
    memcpy(memory + BLOCK, block, sizeof block);
    for (uint32_t page = FIRST; page < page_count; page++) {
        uint32_t address = page * PAGE;
        for (size_t byte = 4; byte < LAST; byte++) memory[address + byte] = filling(byte);
        memcpy(memory + address, &address, 4);
        memcpy(memory + address + LAST, &address, 4);
    }
    // 32-bit protected mode without paging, with flat segments, and with SSE switched on.
    control(vcpu, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
    set_segment(&special.cs, 11, 8);
    struct kvm_segment *data[] = {&special.ds, &special.es, &special.fs, &special.gs, &special.ss};
    for (int i = 0; i < 5; i++) set_segment(data[i], 3, 16);
    special.cr0 = 0x13;   // PE, MP, ET
    special.cr4 = 0x600;  // OSFXSR, OSXMMEXCPT
    control(vcpu, KVM_SET_SREGS, &special, "KVM_SET_SREGS");
    control(vcpu, KVM_SET_REGS, &general, "KVM_SET_REGS");
}

// ---- Running

static void take(uint8_t byte) {
    static struct timespec said;
    struct timespec now;
    if (byte == '!') {
        fprintf(stderr, "vmm: the guest has found data that it did not write\n");
        exit(3);
    }
    if (byte != '\n') return;
    pass++;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((now.tv_sec - said.tv_sec) * 1000000000 + now.tv_nsec - said.tv_nsec < 50000000) return;
    said = now;
    printf("pass %lu\n", pass);
    fflush(stdout);
}

static void *run_vcpu(void *unused) {
    (void)unused;
    for (;;) {
        int result = ioctl(vcpu, KVM_RUN, 0);
        if (result < 0 && errno != EINTR) die("KVM_RUN");
        // The kernel has completed the last exit before it looked at immediate_exit, so the state can be saved.
        if (result < 0 && shared->immediate_exit) return NULL;
        if (result < 0) continue;
        if (shared->exit_reason != KVM_EXIT_IO || shared->io.port != SERIAL || shared->io.size != 1) {
            fprintf(stderr, "vmm: the guest has left for an unknown reason %u\n", shared->exit_reason);
            exit(3);
        }
        take(((uint8_t *)shared)[shared->io.data_offset]);
    }
}

static void kick(int signal) { (void)signal; }

static const char *start(void) {
    shared->immediate_exit = 0;
    return pthread_create(&thread, NULL, run_vcpu, NULL) ? "cannot start the vCPU's thread" : NULL;
}

static const char *run(void *unused) {
    (void)unused;
    const char *failure = start();
    if (!failure) say("runs");
    return failure;
}

static const char *resume(void *unused) {
    (void)unused;
    const char *failure = start();
    if (!failure) say("resumed");
    return failure;
}

// Kicks the vCPU out of the guest. The signal interrupts KVM_RUN; immediate_exit stops a thread that is about to enter.
static const char *stop(void *unused) {
    (void)unused;
    shared->immediate_exit = 1;
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
    say("stopped");
    return NULL;
}

// ---- Devices

// Parts of the state that the kernel gives and takes as one structure, in the order in which they must be loaded.
static struct part {
    const char *name;
    unsigned long get, set;
    size_t bytes;
    int is_of_machine;
    uint32_t chip;
} parts[] = {
    {"sregs", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs), 0, 0},
    {"debugregs", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs), 0, 0},
    {"regs", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs), 0, 0},
    {"xcrs", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs), 0, 0},
    {"fpu", KVM_GET_XSAVE2, KVM_SET_XSAVE, 0, 0, 0},  // the processor says how many bytes
    {"lapic", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state), 0, 0},
    {"msrs", 0, 0, 0, 0, 0},  // after the local APIC, since one of them is the deadline of its timer
    {"events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events), 0, 0},
    {"mp_state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state), 0, 0},
    {"pic-master", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, sizeof(struct kvm_irqchip), 1, KVM_IRQCHIP_PIC_MASTER},
    {"pic-slave", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, sizeof(struct kvm_irqchip), 1, KVM_IRQCHIP_PIC_SLAVE},
    {"ioapic", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, sizeof(struct kvm_irqchip), 1, KVM_IRQCHIP_IOAPIC},
    {"clock", KVM_GET_CLOCK, KVM_SET_CLOCK, sizeof(struct kvm_clock_data), 1, 0},
    {"serial", 0, 0, sizeof pass, 0, 0},
};
enum { PARTS = sizeof parts / sizeof *parts };

static int has_name(const struct part *part, const char *name) { return !strcmp(part->name, name); }

struct one_msr { struct kvm_msrs head; struct kvm_msr_entry entry; };

// Reads an MSR; returns 0 if KVM lists it but cannot read it.
static int read_msr(struct one_msr *one, uint32_t number) {
    *one = (struct one_msr){.head = {.nmsrs = 1}, .entry = {.index = number}};
    return ioctl(vcpu, KVM_GET_MSRS, one) == 1;
}

static const char *save(void *unused, struct pf *p) {
    (void)unused;
    const char *failure = NULL;
    for (struct part *part = parts; part < parts + PARTS && !failure; part++) {
        if (has_name(part, "serial")) {
            failure = pf_save(p, part->name, &pass, sizeof pass);
            continue;
        }
        size_t bytes = part->bytes;
        uint8_t *state = calloc(1, bytes + numbers->nmsrs * sizeof(struct kvm_msr_entry));
        if (has_name(part, "msrs")) {
            for (uint32_t i = 0; i < numbers->nmsrs; i++) {
                struct one_msr one;
                if (!read_msr(&one, numbers->indices[i])) continue;
                memcpy(state + bytes, &one.entry, sizeof one.entry);
                bytes += sizeof one.entry;
            }
        } else {
            if (part->get == KVM_GET_IRQCHIP) memcpy(state, &part->chip, sizeof part->chip);
            if (ioctl(part->is_of_machine ? machine : vcpu, part->get, state) < 0) failure = "KVM gives no state";
        }
        if (!failure) failure = pf_save(p, part->name, state, bytes);
        free(state);
    }
    return failure;
}

static const char *load_msrs(const uint8_t *state, size_t bytes) {
    for (size_t at = 0; at + sizeof(struct kvm_msr_entry) <= bytes; at += sizeof(struct kvm_msr_entry)) {
        struct one_msr now, one = {.head = {.nmsrs = 1}};
        memcpy(&one.entry, state + at, sizeof one.entry);
        // Some MSRs can be read and not written, so only those that differ are written.
        if (read_msr(&now, one.entry.index) && now.entry.data == one.entry.data) continue;
        if (ioctl(vcpu, KVM_SET_MSRS, &one) != 1) return "KVM does not take an MSR; the processors differ";
    }
    return NULL;
}

static const char *load(void *unused, const char *device, const uint8_t *state, size_t bytes) {
    (void)unused;
    struct part *part = parts;
    while (part < parts + PARTS && !has_name(part, device)) part++;
    if (part == parts + PARTS) return "this program has no such device";
    if (is_broken && has_name(part, "lapic")) return "the local APIC is broken, as the test asked";
    if (has_name(part, "msrs")) return load_msrs(state, bytes);
    if (bytes != part->bytes) return "a device's state has another size here; the kernels or the processors differ";
    if (has_name(part, "serial")) return memcpy(&pass, state, sizeof pass), NULL;
    uint8_t *copy = memcpy(malloc(bytes), state, bytes);
    // KVM tells how the clock was read, and does not take that back.
    if (part->set == KVM_SET_CLOCK) ((struct kvm_clock_data *)copy)->flags = 0;
    int result = ioctl(part->is_of_machine ? machine : vcpu, part->set, copy);
    free(copy);
    return result < 0 ? "KVM does not take a device's state; the kernels or the processors differ" : NULL;
}

// ---- Checking

// Checks every page of the stopped guest against its progress, which the registers tell.
static const char *verify(void *unused, uint64_t *checked, uint64_t *wrong) {
    (void)unused;
    struct kvm_regs registers;
    control(vcpu, KVM_GET_REGS, &registers, "KVM_GET_REGS");
    uint32_t key = registers.rbp, here = registers.rdi / PAGE;
    // Before the first instruction, and between two passes, every page is from the same pass.
    int is_between = registers.rip == (uint64_t)(pageferry_guest_code_turn - pageferry_guest_code);
    if (is_between || (registers.rip == 0 && key == 0)) here = page_count;
    *checked = page_count;
    *wrong = memcmp(memory, pageferry_guest_code, pageferry_guest_code_end - pageferry_guest_code) != 0;
    for (uint32_t page = FIRST; page < page_count; page++) {
        uint32_t words[2], new = page * PAGE + key, old = new - STEP;
        const uint8_t *at = memory + (size_t)page * PAGE;
        memcpy(&words[0], at, 4);
        memcpy(&words[1], at + LAST, 4);
        int is_right = page < here ? words[0] == new && words[1] == new
            : (words[0] == old || (page == here && words[0] == new)) &&
              (words[1] == old || (page == here && words[0] == new && words[1] == new));
        for (size_t byte = 4; byte < LAST && is_right; byte++) is_right = at[byte] == filling(byte);
        if (!is_right) ++*wrong;
    }
    return NULL;
}

static void complete(void *unused) {
    (void)unused;
    say("complete");
}

int main(int argc, char **argv) {
    if (argc < 4 || (strcmp(argv[2], "runs") && strcmp(argv[2], "waits"))) {
        fprintf(stderr, "usage: vmm SOCKET runs|waits MIB [broken]\n");
        return 2;
    }
    int waits = !strcmp(argv[2], "waits");
    is_broken = argc > 4;
    page_count = strtoul(argv[3], NULL, 10) << 8;
    int file = memfd_create("guest", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)page_count * PAGE)) die("the guest's memory");
    memory = mmap(NULL, (size_t)page_count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) die("the guest's memory");
    signal(SIGUSR1, kick);
    make_machine();
    for (struct part *part = parts; part < parts + PARTS; part++)
        if (has_name(part, "fpu")) part->bytes = ioctl(machine, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    if (!waits) {
        boot();
        run(NULL);
    }

    static const struct pf_program program = {
        .stop = stop, .save = save, .load = load, .run = run, .resume = resume, .verify = verify, .complete = complete,
    };
    struct pf p = {.role = waits ? PF_WAITS : PF_RUNS, .abilities = PF_VERIFIES, .name = "guest", .count = 1};
    p.region[0] = (struct pf_region){.at = memory, .bytes = (uint64_t)page_count * PAGE, .file = file};
    if (pf_attach(&p, argv[1])) {
        fprintf(stderr, "vmm: %s\n", p.error);
        return 1;
    }
    say("attached");
    switch (pf_serve(&p, &program, NULL)) {
    case PF_MOVED:
        say("moved");
        return 0;
    case PF_NOT_USED:
        fprintf(stderr, "vmm: %s\n", p.error);
        return 1;
    case PF_STAYS:
        say("stays stopped: the guest may run on another host");
        break;
    case PF_AGENT_GONE:
        say(p.is_running ? "runs without an agent" : "the agent is gone");
        if (!p.is_running) return 1;
        break;
    }
    for (;;) pause();
}
