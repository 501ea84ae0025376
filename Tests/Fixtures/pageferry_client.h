// Pageferry's hand-off, version 3, in one C file without dependencies: include it in one source file of a program.
//
// A program that has a workload calls pf_attach() with PF_RUNS, and one that waits for a workload calls it with
// PF_WAITS. Then it calls pf_serve(), which answers the agent until the workload has moved. pf_serve() calls the
// program's functions on the calling thread; the workload runs on other threads.
//
//   static const struct pf_program program = {.stop = stop, .save = save, .load = load, .run = run, .resume = resume};
//   struct pf p = {.role = PF_RUNS, .name = "store", .count = 1};
//   p.region[0] = (struct pf_region){.at = memory, .bytes = size, .file = descriptor};
//   if (pf_attach(&p, "/run/pageferry-attach.sock")) return fprintf(stderr, "%s\n", p.error), 1;
//   switch (pf_serve(&p, &program, NULL)) {...}
//
// The article AttachAProcess describes the messages, and what a program must not do meanwhile.
#ifndef PAGEFERRY_CLIENT_H
#define PAGEFERRY_CLIENT_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before the first include"
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { PF_RUNS = 1, PF_WAITS = 2 };      // the role: the workload runs here, or this process waits for one
enum { PF_VERIFIES = 1, PF_FREES = 2 };  // abilities: program.verify and program.free are set
enum { PF_MAX_REGIONS = 64, PF_MAX_FILES = 15, PF_MAX_NAME = 64, PF_CHUNK = 1 << 20 };

// Kinds of messages.
enum {
    PF_REFUSED = 1, PF_DEVICE, PF_LOAD, PF_RUN, PF_COMPLETE, PF_ACCEPTED, PF_DATA, PF_PREPARE, PF_STOP, PF_SAVE,
    PF_DEPART, PF_RESUME, PF_RELEASE, PF_VERIFY, PF_FREE, PF_DONE = 0x101, PF_FAILED = 0x102
};

// What pf_serve() returns.
enum pf_end {
    PF_AGENT_GONE,  // the agent has hung up; if `is_running`, the workload runs here, and `resume` was called if needed
    PF_STAYS,       // the agent has hung up when another host was permitted to run the workload: do not run it
    PF_MOVED,       // RELEASE: the workload runs elsewhere for good; another one may arrive in new memory
    PF_NOT_USED,    // REFUSED, with the reason in `error`; nothing ran here: attach again with new memory
};

struct pf;

// The program's part. Each function returns NULL, or the reason why it failed. Functions that are NULL do nothing.
struct pf_program {
    const char *(*prepare)(void *);  // what takes long, while the workload runs
    const char *(*stop)(void *);     // when this returns NULL, nothing executes that changes the memory or a device
    const char *(*save)(void *, struct pf *);  // calls pf_save() for each device; may be called again after `resume`
    const char *(*load)(void *, const char *device, const uint8_t *state, size_t bytes);  // in the order of the saves
    const char *(*run)(void *);      // all devices have loaded: run the workload; if this fails, nothing of it has run
    const char *(*resume)(void *);   // run on exactly where `stop` has stopped
    const char *(*verify)(void *, uint64_t *checked, uint64_t *wrong);  // counts pages; with PF_VERIFIES
    void (*complete)(void *);        // all pages are here, and the userfaultfd is closed
    void (*free)(void *, unsigned region, uint64_t page, uint64_t count);  // drop private memory; with PF_FREES
};

// A process that attaches. Set the first part, to zero what is not needed.
struct pf {
    int role, abilities;
    const char *name;  // of the workload, the same on both hosts
    unsigned count;    // of regions
    struct pf_region {
        void *at;
        uint64_t bytes, offset;  // the offset in the memory file
        uint32_t page_size;      // 0 means 4096
        int file;                // the memory file, or 0 for private memory
    } region[PF_MAX_REGIONS];

    int socket, userfaultfd;  // the userfaultfd is -1 if there is none
    int is_running;           // whether the workload runs in this process
    char error[1100];
};

static int pf_fail(struct pf *p, const char *format, ...) {
    va_list list;
    va_start(list, format), vsnprintf(p->error, sizeof p->error, format, list), va_end(list);
    return -1;
}

// Sends or receives exactly `bytes` bytes, whatever signals arrive; -1 if the agent has hung up.
static int pf_move(struct pf *p, void *at, size_t bytes, int is_sent) {
    while (bytes) {
        ssize_t moved = is_sent ? send(p->socket, at, bytes, MSG_NOSIGNAL) : recv(p->socket, at, bytes, 0);
        if (moved == 0 || (moved < 0 && errno != EINTR)) return pf_fail(p, "the agent has hung up");
        if (moved > 0) bytes -= moved, at = (char *)at + moved;
    }
    return 0;
}
static int pf_take(struct pf *p, void *to, size_t bytes) { return pf_move(p, to, bytes, 0); }

static int pf_send(struct pf *p, uint32_t kind, const void *content, uint32_t bytes) {
    uint32_t header[2] = {kind, bytes};  // little-endian, as this machine is
    return pf_move(p, header, sizeof header, 1) || pf_move(p, (void *)content, bytes, 1) ? -1 : 0;
}

// Answers a request: DONE, or FAILED with a reason.
static int pf_answer(struct pf *p, uint32_t request, const char *reason) {
    char content[4 + 1020];
    size_t bytes = reason ? strnlen(reason, 1020) : 0;
    memcpy(content, &request, 4);
    if (bytes) memcpy(content + 4, reason, bytes);
    return pf_send(p, reason ? PF_FAILED : PF_DONE, content, 4 + bytes);
}

// Sends the state of a device, from program.save. The name has 1 to 64 bytes.
static const char *pf_save(struct pf *p, const char *device, const void *state, uint64_t bytes) {
    uint8_t head[8 + PF_MAX_NAME];
    size_t length = strlen(device);
    if (length < 1 || length > PF_MAX_NAME) return "a device's name has 1 to 64 bytes";
    memcpy(head, &bytes, 8);
    memcpy(head + 8, device, length);
    if (pf_send(p, PF_DEVICE, head, 8 + length)) return "the agent has hung up";
    for (uint64_t done = 0, part; done < bytes; done += part) {
        part = bytes - done < PF_CHUNK ? bytes - done : PF_CHUNK;
        if (pf_send(p, PF_DATA, (const char *)state + done, part)) return "the agent has hung up";
    }
    return NULL;
}

// Makes a userfaultfd for memory that waits for its pages, or returns -1. The agent registers the regions with it.
static int pf_userfaultfd(struct pf *p) {
    uint64_t features = 0;
    for (unsigned i = 0; i < p->count; i++)
        if (p->region[i].file > 0)
            features |= p->region[i].page_size > 4096 ? UFFD_FEATURE_MINOR_HUGETLBFS : UFFD_FEATURE_MINOR_SHMEM;
    // The device is for those who may open it, and the system call for root. Both give a userfaultfd that serves system
    // calls too, such as KVM_RUN or a read() into a missing page.
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int flags = O_CLOEXEC | O_NONBLOCK;
    int fd = device >= 0 ? ioctl(device, _IO(0xAA, 0), flags) : (int)syscall(SYS_userfaultfd, flags);
    if (device >= 0) close(device);
    if (fd < 0) return pf_fail(p, "no userfaultfd: %s; run as root, or see /dev/userfaultfd", strerror(errno));
    // With events, the agent notices what a program must not do while pages are missing. A kernel without one of them
    // refuses them all, and events of forks are for those with CAP_SYS_PTRACE.
    const uint64_t events = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP
        | UFFD_FEATURE_THREAD_ID, wishes[] = {events | UFFD_FEATURE_EVENT_FORK, events, 0};
    for (int i = 0; i < 3; i++) {
        struct uffdio_api api = {.api = UFFD_API, .features = features | wishes[i]};
        if (!ioctl(fd, UFFDIO_API, &api)) return fd;
    }
    pf_fail(p, "the kernel lacks a userfaultfd feature: %s", strerror(errno));
    close(fd);
    return -1;
}

// Sends the hand-off, and takes the agent's answer, on the connected socket.
static int pf_hand_over(struct pf *p, const void *message, size_t bytes, const int *descriptors, unsigned count) {
    union { struct cmsghdr header; char space[CMSG_SPACE((1 + PF_MAX_FILES) * sizeof(int))]; } control = {0};
    struct iovec iov = {(void *)message, bytes};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        size_t size = count * sizeof(int);
        m.msg_control = &control, m.msg_controllen = CMSG_SPACE(size);
        control.header.cmsg_level = SOL_SOCKET, control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(&control.header), descriptors, size);
    }
    ssize_t sent;
    while ((sent = sendmsg(p->socket, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR) {}
    if (sent != (ssize_t)bytes) return pf_fail(p, "cannot hand the memory over: %s", strerror(errno));
    uint32_t header[2];
    char reason[1025] = "";
    if (pf_take(p, header, sizeof header)) return -1;
    if (header[0] == PF_ACCEPTED) return 0;
    if (header[0] != PF_REFUSED || header[1] > 1024) return pf_fail(p, "this is no agent's socket");
    if (pf_take(p, reason, header[1])) return -1;
    return pf_fail(p, "the agent refuses: %s", reason);
}

// Connects to an agent's socket, and hands the memory over. Returns 0, or -1 with the reason in `error`.
// The agent looks for the memory in the process that has called this function: do not fork between this and pf_serve().
static int pf_attach(struct pf *p, const char *path) {
    uint8_t message[16 + 32 * PF_MAX_REGIONS + PF_MAX_NAME] = {'P', 'G', 'H', 'O', 3, 0};
    uint16_t fields[5] = {p->count, p->role, p->abilities, strlen(p->name), 0};
    int descriptors[1 + PF_MAX_FILES], files = 0, first = p->role == PF_WAITS;  // of the memory files
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    p->socket = p->userfaultfd = -1;
    p->is_running = p->role == PF_RUNS;
    if (p->count < 1 || p->count > PF_MAX_REGIONS || strlen(p->name) < 1 || strlen(p->name) > PF_MAX_NAME)
        return pf_fail(p, "a program has 1 to 64 regions, and a name of 1 to 64 bytes");
    if (strlen(path) >= sizeof to.sun_path) return pf_fail(p, "%s: the path is too long for a socket", path);
    strcpy(to.sun_path, path);
    memcpy(message + 6, fields, sizeof fields);
    for (unsigned i = 0; i < p->count; i++) {
        struct pf_region *r = &p->region[i];
        uint32_t file = 0;  // its number among the files, from 1
        for (int f = 0; r->file > 0 && f < files && !file; f++) if (descriptors[first + f] == r->file) file = f + 1;
        if (r->file > 0 && !file) {
            if (files == PF_MAX_FILES) return pf_fail(p, "at most %d memory files", PF_MAX_FILES);
            descriptors[first + files] = r->file;
            file = ++files;
        }
        if (!r->page_size) r->page_size = 4096;
        uint64_t numbers[4] = {(uintptr_t)r->at, r->bytes, r->page_size | (uint64_t)file << 32, file ? r->offset : 0};
        memcpy(message + 16 + 32 * i, numbers, sizeof numbers);
    }
    size_t bytes = 16 + 32 * p->count;
    memcpy(message + bytes, p->name, fields[3]);
    if (first && (p->userfaultfd = descriptors[0] = pf_userfaultfd(p)) < 0) return -1;
    p->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = p->socket < 0 || connect(p->socket, (struct sockaddr *)&to, sizeof to)
        ? pf_fail(p, "cannot connect to %s: %s; start the agent first", path, strerror(errno))
        : pf_hand_over(p, message, bytes + fields[3], descriptors, first + files);
    if (!result) return 0;
    if (p->socket >= 0) close(p->socket);
    if (p->userfaultfd >= 0) close(p->userfaultfd);  // nothing has arrived, so no page turns into zeros
    p->socket = p->userfaultfd = -1;
    return -1;
}

// Answers the agent until the connection ends or the workload has moved; the program's functions get `context`.
// If this returns before `complete`, keep the userfaultfd open as long as the memory is read, and close it before you
// unmap the memory: see the article.
static enum pf_end pf_serve(struct pf *p, const struct pf_program *program, void *context) {
    uint8_t *state = NULL;             // of the device that arrives, of which `have` of `size` bytes are here
    uint64_t size = 0, have = 0;
    char device[PF_MAX_NAME + 1] = "";
    const char *reason = NULL;         // why a device did not load; the answer to LOAD
    int is_stopped = 0, has_departed = 0;  // since STOP; since DEPART, when another host may run the workload
    enum pf_end end = PF_AGENT_GONE;
#define PF_CALL(function, ...) (program->function ? program->function(context, ##__VA_ARGS__) : NULL)
    for (uint32_t header[2]; end == PF_AGENT_GONE && !pf_take(p, header, sizeof header);) {
        uint32_t kind = header[0], bytes = header[1];
        uint8_t *content = bytes <= PF_CHUNK ? malloc(bytes + 1) : NULL;
        if (!content || pf_take(p, content, bytes)) { free(content); break; }
        content[bytes] = 0;
        const char *failure = NULL;
        int is_answered = kind != PF_REFUSED && kind != PF_DEVICE && kind != PF_DATA && kind != PF_FREE;
        switch (kind) {
        case PF_DEVICE:
        case PF_DATA:
            if (kind == PF_DEVICE && bytes > 8 && bytes <= 8 + PF_MAX_NAME && !state) {
                memcpy(&size, content, 8);
                snprintf(device, sizeof device, "%s", (char *)content + 8);
                have = 0;
                if (!(state = size <= 1 << 30 ? malloc(size + 1) : NULL)) reason = "no memory for a device's state";
            } else if (kind == PF_DATA && state && bytes <= size - have) {
                memcpy(state + have, content, bytes);
                have += bytes;
            } else if (!reason) {
                reason = "the states of the devices are out of order";
            }
            if (!state || have < size) break;
            // The state is complete, maybe with 0 bytes. After a failure, no further device is loaded.
            if (!reason) reason = PF_CALL(load, device, state, size);
            free(state), state = NULL;
            break;
        case PF_LOAD: failure = reason ? reason : state ? "a device's state is incomplete" : NULL; break;
        case PF_RUN: if (!(failure = PF_CALL(run))) p->is_running = 1; break;
        case PF_COMPLETE:
            if (p->userfaultfd >= 0) close(p->userfaultfd), p->userfaultfd = -1;
            if (program->complete) program->complete(context);
            break;
        case PF_PREPARE: failure = PF_CALL(prepare); break;
        case PF_STOP: if (!(failure = PF_CALL(stop))) is_stopped = 1, p->is_running = 0; break;
        case PF_SAVE: failure = PF_CALL(save, p); break;
        case PF_DEPART: has_departed = 1; break;
        case PF_RESUME:  // also sent when STOP was answered too late; the workload then runs already if STOP has failed
            if (p->is_running || !(failure = PF_CALL(resume))) has_departed = is_stopped = 0, p->is_running = 1;
            break;
        case PF_VERIFY: {
            uint64_t counts[2] = {0, 0};  // pages checked, and wrong ones
            uint8_t answer[4 + sizeof counts] = {PF_VERIFY};
            failure = program->verify ? program->verify(context, &counts[0], &counts[1]) : "this program cannot verify";
            memcpy(answer + 4, counts, sizeof counts);
            if (!failure) is_answered = 0, pf_send(p, PF_DONE, answer, sizeof answer);
        } break;
        case PF_FREE: {
            const uint64_t *n = (const uint64_t *)content;  // the region, the first page, and the number of pages
            if (program->free && bytes == 24) program->free(context, n[0], n[1], n[2]);
        } break;
        case PF_RELEASE: end = PF_MOVED; break;
        case PF_REFUSED: pf_fail(p, "%s", (char *)content), end = PF_NOT_USED; break;
        default: failure = "the request is unknown";
        }
        if (is_answered) pf_answer(p, kind, failure);  // if the agent has hung up, the next pf_take() shows it
        free(content);
    }
    free(state);
    close(p->socket);
    if (end != PF_AGENT_GONE) return end;
    if (has_departed) return PF_STAYS;
    // No other host was permitted to run a stopped workload, so it runs on here.
    if (is_stopped && (reason = PF_CALL(resume))) pf_fail(p, "the workload cannot resume: %s", reason);
    else if (is_stopped) p->is_running = 1;
    return PF_AGENT_GONE;
#undef PF_CALL
}
#endif
