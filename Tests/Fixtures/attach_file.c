// A workload as in attach.c, but in shared memory, whose file the process hands over beside its userfaultfd. The
// process touches every page in random order, checks the content, writes into the page, and checks its writes at the
// end.
//   cc -O2 attach_file.c -o attach_file && ./attach_file SOCKET SEED BYTES
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { DEVICE = 2, LOAD = 3, RUN = 4, DONE = 0x101, PAGE = 4096 };
struct header { uint32_t kind, length; };
struct hand_off {
    uint32_t magic; uint16_t version, count;
    struct { uint64_t address, bytes; uint32_t page_size, file; uint64_t offset; } region;
};

static void fail(const char *what) { fprintf(stderr, "attach_file: %s: %s\n", what, strerror(errno)); exit(1); }
static void take(int s, void *to, size_t n) { for (ssize_t r; n; n -= r, to = (char *)to + r) if ((r = recv(s, to, n, 0)) <= 0) fail("the agent hung up"); }

// The format of the built-in workloads' pages: index, version, checksum, next, payload.
static uint64_t mixed(uint64_t w) { w = (w ^ w >> 30) * 0xBF58476D1CE4E5B9; w = (w ^ w >> 27) * 0x94D049BB133111EB; return w ^ w >> 31; }
static int holds(const uint64_t *page, uint64_t index, uint64_t seed) {
    uint64_t all = 0, s[4] = {mixed(seed), page[0] * 0xD6E8FEB86659FD93, page[1] * 0xA0761D6478BD642F, page[3] * 0xE7037ED1A0B428DB};
    for (int i = 0; i < PAGE / 8; i++) all |= page[i];
    if (!all) return 1; // never written
    for (int i = 4; i < PAGE / 8; i++) { uint64_t p = (s[i & 3] ^ page[i]) * 0x9E3779B97F4A7C15; s[i & 3] = p << 29 | p >> 35; }
    return page[0] == index && page[2] == mixed(mixed(mixed(mixed(s[0]) ^ s[1]) ^ s[2]) ^ s[3]);
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: attach_file SOCKET SEED BYTES\n"); return 2; }
    size_t bytes = strtoull(argv[3], NULL, 0), pages = bytes / PAGE;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), uffd;
    uffd = device >= 0 ? ioctl(device, _IO(0xAA, 0), O_CLOEXEC | O_NONBLOCK) : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) fail("userfaultfd");
    int file = memfd_create("guest", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, bytes)) fail("memfd");
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    struct uffdio_register r = {.range = {(uintptr_t)at, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
    if (at == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &r)) fail("register");
    struct hand_off hand = {0x4f484750, 2, 1, {(uintptr_t)at, bytes, PAGE, 1, 0}};

    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
    if (connect(s, (void *)&to, sizeof to)) fail(argv[1]);
    union { struct cmsghdr h; char space[CMSG_SPACE(2 * sizeof uffd)]; } control = {0};
    control.h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(2 * sizeof uffd)};
    memcpy(CMSG_DATA(&control.h), (int[]){uffd, file}, 2 * sizeof uffd);
    struct iovec iov = {&hand, 8 + 32};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (sendmsg(s, &message, 0) < 0) fail("hand-off");

    struct header h, done = {DONE, 0};
    for (h.kind = 0; h.kind != RUN;) { // until RUN nothing is touched
        take(s, &h, sizeof h);
        char *payload = calloc(1, h.length + 1);
        take(s, payload, h.length);
        if (h.kind != DEVICE && h.kind != LOAD && h.kind != RUN) { fprintf(stderr, "attach_file: refused: %s\n", payload); return 1; }
        if (h.kind != DEVICE && send(s, &done, sizeof done, MSG_NOSIGNAL) < 0) fail("answer");
        free(payload);
    }

    uint64_t *order = malloc(pages * sizeof *order), x = 88172645463325252, wrong = 0, seed = strtoull(argv[2], NULL, 0);
    for (size_t i = 0; i < pages; i++) order[i] = i;
    for (size_t i = pages - 1; i; i--) { x ^= x << 13, x ^= x >> 7, x ^= x << 17; size_t j = x % (i + 1); uint64_t t = order[i]; order[i] = order[j], order[j] = t; }
    for (size_t i = 0; i < pages; i++) {
        volatile uint64_t *page = (uint64_t *)(at + order[i] * PAGE);
        (void)*page;
        wrong += !holds((uint64_t *)page, order[i], seed);
        page[PAGE / 8 - 1] = ~order[i];
    }
    for (size_t i = 0; i < pages; i++) wrong += ((volatile uint64_t *)(at + i * PAGE))[PAGE / 8 - 1] != ~i;
    printf("{\"pages\":%zu,\"wrong\":%lu}\n", pages, wrong);
    return wrong != 0;
}
