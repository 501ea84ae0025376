// Minimal code that moves pages between two processes over loopback TCP by userfaultfd: no protocol, no state, no
// recovery. Tests compare the cost of Pageferry with this program in the same run on the same machine.
//   cc -O2 -pthread floor.c -o floor && ./floor FAULTS BULK_MIB
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };
static char *memory, *stage;
static int uffd, lane;

static void check(long result, const char *what) { if (result < 0) { perror(what); exit(1); } }
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static int ascending(const void *a, const void *b) { uint64_t x = *(uint64_t *)a, y = *(uint64_t *)b; return (x > y) - (x < y); }
static char *map(size_t bytes) { return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void take(int s, char *to, size_t n) { for (ssize_t r; n; n -= r, to += r) if ((r = recv(s, to, n, 0)) <= 0) exit(1); }
static void give(int s, const char *from, size_t n) { for (ssize_t r; n; n -= r, from += r) if ((r = send(s, from, n, MSG_NOSIGNAL)) <= 0) exit(0); }
static void place(char *at, size_t n) { struct uffdio_copy c = {.dst = (uintptr_t)at, .src = (uintptr_t)stage, .len = n}; check(ioctl(uffd, UFFDIO_COPY, &c), "UFFDIO_COPY"); }

// A process that holds `pages` pages, and answers each page number with that page, or sends all pages.
static pid_t serve(size_t pages, int bulk) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    check(bind(listener, (void *)&at, sizeof at), "bind"); check(listen(listener, 1), "listen");
    getsockname(listener, (void *)&at, &length);
    pid_t pid = fork();
    if (!pid) {
        int s = accept(listener, NULL, NULL);
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        char *all = map(pages * PAGE), go = 'r';
        for (size_t i = 0; i < pages; i++) *(uint64_t *)(all + i * PAGE) = i + 1;
        give(s, &go, 1); take(s, &go, 1);
        if (bulk) { give(s, all, pages * PAGE); take(s, &go, 1); exit(0); }
        for (uint64_t page; recv(s, &page, 8, MSG_WAITALL) == 8;) give(s, all + page * PAGE, PAGE);
        exit(0);
    }
    lane = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(lane, (void *)&at, sizeof at), "connect");
    setsockopt(lane, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
    char ready; take(lane, &ready, 1); give(lane, "g", 1);
    memory = map(pages * PAGE);
    madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
    uffd = syscall(SYS_userfaultfd, 0);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register r = {.range = {(uintptr_t)memory, pages * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    check(ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API"); check(ioctl(uffd, UFFDIO_REGISTER, &r), "UFFDIO_REGISTER");
    return pid;
}

static void *handle(void *unused) {
    for (struct uffd_msg m; read(uffd, &m, sizeof m) == sizeof m;) {
        uint64_t at = m.arg.pagefault.address & ~(uint64_t)(PAGE - 1), page = (at - (uintptr_t)memory) / PAGE;
        give(lane, (char *)&page, 8); take(lane, stage, PAGE); place((char *)at, PAGE);
    }
    return unused;
}

int main(int argc, char **argv) {
    size_t faults = argc > 1 ? atol(argv[1]) : 20000, bulk = (argc > 2 ? atol(argv[2]) : 256) << 20;
    stage = map(1 << 20);
    pid_t pid = serve(faults, 0);
    pthread_t handler;
    pthread_create(&handler, NULL, handle, NULL);
    uint64_t *stall = malloc(faults * 8), *order = malloc(faults * 8), x = 88172645463325252;
    for (size_t i = 0; i < faults; i++) order[i] = i;
    for (size_t i = faults - 1; i; i--) { x ^= x << 13, x ^= x >> 7, x ^= x << 17; size_t j = x % (i + 1); uint64_t t = order[i]; order[i] = order[j], order[j] = t; }
    for (size_t i = 0; i < faults; i++) { volatile uint64_t *at = (void *)(memory + order[i] * PAGE); uint64_t before = now(); (void)*at; stall[i] = now() - before; }
    qsort(stall, faults, 8, ascending);
    kill(pid, 9); waitpid(pid, NULL, 0);
    double best = 0;
    for (size_t chunk = 16 * PAGE; chunk <= 256 * PAGE; chunk *= 4) {
        pid = serve(bulk / PAGE, 1);
        uint64_t before = now();
        for (size_t o = 0; o < bulk; o += chunk) { take(lane, stage, chunk); place(memory + o, chunk); }
        double rate = bulk / 1048576. / ((now() - before) / 1e9);
        if (rate > best) best = rate;
        give(lane, "e", 1); waitpid(pid, NULL, 0); munmap(memory, bulk); close(uffd); close(lane);
    }
    printf("{\"remote_fault_p50_us\":%.2f,\"bulk_mib_s\":%.0f}\n", stall[faults / 2] / 1e3, best);
    return 0;
}
