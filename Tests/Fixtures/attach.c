// A workload in a process of its own. The process maps memory and hands its userfaultfd to a Pageferry destination.
// Once it may run, the process touches every page in random order, times each access, and checks the content.
//   cc -O2 attach.c -o attach && ./attach SOCKET SEED BYTES...    (the bytes of each region)
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
#include <time.h>
#include <unistd.h>

enum { DEVICE = 2, LOAD = 3, RUN = 4, DONE = 0x101, PAGE = 4096, MAX_REGIONS = 64 };
struct header { uint32_t kind, length; };
struct hand_off {
    uint32_t magic; uint16_t version, count;
    struct { uint64_t address, bytes; uint32_t page_size, reserved; } region[MAX_REGIONS];
};

static void fail(const char *what) { fprintf(stderr, "attach: %s: %s\n", what, strerror(errno)); exit(1); }
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static int ascending(const void *a, const void *b) { uint64_t x = *(uint64_t *)a, y = *(uint64_t *)b; return (x > y) - (x < y); }
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
    if (argc < 4 || argc > 3 + MAX_REGIONS) { fprintf(stderr, "usage: attach SOCKET SEED BYTES...\n"); return 2; }
    struct hand_off hand = {.magic = 0x4f484750, .version = 1, .count = argc - 3};
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), uffd;
    uffd = device >= 0 ? ioctl(device, _IO(0xAA, 0), O_CLOEXEC | O_NONBLOCK) : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) fail("userfaultfd");
    size_t pages = 0;
    for (int i = 0; i < hand.count; i++) {
        size_t bytes = strtoull(argv[3 + i], NULL, 0);
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        struct uffdio_register r = {.range = {(uintptr_t)at, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        if (at == MAP_FAILED || madvise(at, bytes, MADV_NOHUGEPAGE) || ioctl(uffd, UFFDIO_REGISTER, &r)) fail("register");
        hand.region[i].address = (uintptr_t)at, hand.region[i].bytes = bytes, hand.region[i].page_size = PAGE;
        pages += bytes / PAGE;
    }

    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
    if (connect(s, (void *)&to, sizeof to)) fail(argv[1]);
    union { struct cmsghdr h; char space[CMSG_SPACE(sizeof uffd)]; } control = {0};
    control.h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof uffd)};
    memcpy(CMSG_DATA(&control.h), &uffd, sizeof uffd);
    struct iovec iov = {&hand, 8 + 24 * hand.count};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (sendmsg(s, &message, 0) < 0) fail("hand-off");

    struct header h, done = {DONE, 0};
    for (h.kind = 0; h.kind != RUN;) { // until RUN nothing is touched
        take(s, &h, sizeof h);
        char *payload = calloc(1, h.length + 1);
        take(s, payload, h.length);
        if (h.kind != DEVICE && h.kind != LOAD && h.kind != RUN) { fprintf(stderr, "attach: refused: %s\n", payload); return 1; }
        if (h.kind != DEVICE && send(s, &done, sizeof done, MSG_NOSIGNAL) < 0) fail("answer");
        free(payload);
    }

    uint64_t *stall = malloc(pages * sizeof *stall), *order = malloc(pages * sizeof *order), x = 88172645463325252, wrong = 0, seed = strtoull(argv[2], NULL, 0);
    for (size_t i = 0; i < pages; i++) order[i] = i;
    for (size_t i = pages - 1; i; i--) { x ^= x << 13, x ^= x >> 7, x ^= x << 17; size_t j = x % (i + 1); uint64_t t = order[i]; order[i] = order[j], order[j] = t; }
    for (size_t i = 0; i < pages; i++) {
        uint64_t page = order[i], region = 0;
        while (page >= hand.region[region].bytes / PAGE) page -= hand.region[region++].bytes / PAGE;
        volatile uint64_t *at = (uint64_t *)(hand.region[region].address + page * PAGE);
        uint64_t before = now(); (void)*at; stall[i] = now() - before;
        wrong += !holds((uint64_t *)at, order[i], seed);
    }
    qsort(stall, pages, sizeof *stall, ascending);
    printf("{\"pages\":%zu,\"wrong\":%lu,\"p50_us\":%.3f,\"p99_us\":%.3f}\n", pages, wrong, stall[pages / 2] / 1e3, stall[pages * 99 / 100] / 1e3);
    return wrong != 0;
}
