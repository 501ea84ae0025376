// A stand-in for a restored Firecracker 1.12. The program hands its userfaultfd over as Firecracker does, and then
// touches and checks its memory at the commands of firecracker-guest.S, with the same marks. Pages are numbered by
// their places in the memory file, and all of them are checked. The program exits at the end of its input.
//   cc -O2 -pthread firecracker-stand-in.c -o stand-in
//   ./stand-in write FILE BYTES...          makes the memory file of an idle guest: generation 1
//   ./stand-in SOCKET PAGE_SIZE BYTES...    restores the guest; the bytes of each region
// There is one more command:
//   I  as i, page by page from a thread of its own, while the pages before the balloon's are touched
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
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

enum { PAGE = 4096, INFLATED_FIRST = 1024, MAX_REGIONS = 8, CHECK = 1, WRITE = 2 };
static struct { char *at; size_t bytes; } region[MAX_REGIONS];
static int regions;
static size_t pages, mask, factor = 1, inflated_end = INFLATED_FIRST, inflate_count = 256;
static uint64_t generation = 1;

static void fail(const char *what) { fprintf(stderr, "stand-in: %s: %s\n", what, strerror(errno)); exit(1); }
static void mark(const char *what, uint64_t number) { printf("%s %016lx\n", what, number); fflush(stdout); }

static char *page(size_t n) {
    size_t offset = n * PAGE, i = 0;
    while (offset >= region[i].bytes) offset -= region[i++].bytes;
    return region[i].at + offset;
}
static int is_zero(size_t n) { return (n & 0x18) == 0x18 || (n >= INFLATED_FIRST && n < inflated_end); }
static void bad(size_t n, uint64_t word) {
    printf("bad %016lx %016lx\n", n, word);
    fflush(stdout);
    for (char byte; read(0, &byte, 1) > 0;) {}
    exit(1);
}

// Touches the pages of the first `steps` steps of the order.
static void walk(size_t steps, int what) {
    for (size_t n = 0; steps; steps--, n = (n * factor + 1) & mask) {
        if (n >= pages) continue;
        volatile uint64_t *first = (uint64_t *)page(n), *last = first + PAGE / 8 - 1;
        uint64_t word = is_zero(n) ? 0 : n * 0x9E3779B97F4A7C15 + generation, end = is_zero(n) ? 0 : ~word;
        if (what & CHECK) {
            if (*first != word) bad(n, *first);
            if (*last != end) bad(n, *last);
        }
        if ((what & WRITE) && !is_zero(n)) *first = word + !!(what & CHECK), *last = ~*first;
    }
}

static void drop(size_t n, size_t count) { if (madvise(page(n), count * PAGE, MADV_DONTNEED)) fail("MADV_DONTNEED"); }
static void *drop_one_by_one(void *unused) {
    for (size_t i = 0, step = inflate_count == 256 ? 1 : inflate_count; i < inflate_count; i += step) drop(inflated_end + i, step);
    return unused;
}

static void set_regions(char **bytes, int count, int flags) {
    if (count > MAX_REGIONS) { fprintf(stderr, "stand-in: %d regions at most\n", MAX_REGIONS); exit(2); }
    for (; regions < count; pages += region[regions++].bytes / PAGE) {
        region[regions].bytes = strtoull(bytes[regions], NULL, 0);
        region[regions].at = mmap(NULL, region[regions].bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
        if (region[regions].at == MAP_FAILED) fail("mmap");
        // Keep a gap between regions, so that the end of one is never the start of another.
        if (mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) fail("mmap");
    }
    for (mask = 1; mask < pages; mask *= 2) {}
    mask--;
}

static void write_file(const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) fail(path);
    walk(mask + 1, WRITE);
    for (int i = 0; i < regions; i++)
        for (size_t done = 0; done < region[i].bytes;) {
            ssize_t n = write(file, region[i].at + done, region[i].bytes - done);
            if (n <= 0) fail(path);
            done += n;
        }
}

// Sends one message: an array of the regions without length or newline, and the userfaultfd.
static void hand_over(const char *path, unsigned long page_size) {
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), uffd;
    uffd = device >= 0 ? ioctl(device, _IO(0xAA, 0), O_CLOEXEC | O_NONBLOCK) : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) fail("userfaultfd");
    char text[MAX_REGIONS * 160] = "[";
    size_t length = 1, offset = 0;
    for (int i = 0; i < regions; offset += region[i++].bytes) {
        struct uffdio_register r = {.range = {(uintptr_t)region[i].at, region[i].bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        if (ioctl(uffd, UFFDIO_REGISTER, &r)) fail("UFFDIO_REGISTER");
        length += sprintf(text + length, "%s{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":%lu,\"page_size\":%lu,\"page_size_kib\":%lu}",
            i ? "," : "", (unsigned long)region[i].at, region[i].bytes, offset, page_size, page_size);
    }
    text[length++] = ']';
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); // stays open, and is never read
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    if (connect(s, (void *)&to, sizeof to)) fail(path);
    union { struct cmsghdr h; char space[CMSG_SPACE(sizeof uffd)]; } control = {0};
    control.h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof uffd)};
    memcpy(CMSG_DATA(&control.h), &uffd, sizeof uffd);
    struct iovec iov = {text, length};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (sendmsg(s, &message, MSG_NOSIGNAL) < 0) fail("hand-off");
}

static void inflate(int command) {
    if (inflated_end + inflate_count > pages) { fprintf(stderr, "stand-in: nothing left to inflate\n"); exit(1); }
    if (command == 'i') {
        drop(inflated_end, inflate_count);
    } else {
        pthread_t thread;
        if (pthread_create(&thread, NULL, drop_one_by_one, NULL)) fail("pthread_create");
        size_t order = factor;
        factor = 1;
        walk(INFLATED_FIRST, CHECK);
        factor = order;
        pthread_join(thread, NULL);
    }
    inflated_end += inflate_count;
    mark("inflated", inflated_end - INFLATED_FIRST);
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: stand-in write FILE BYTES... | stand-in SOCKET PAGE_SIZE BYTES...\n"); return 2; }
    if (!strcmp(argv[1], "write")) { set_regions(argv + 3, argc - 3, 0); write_file(argv[2]); return 0; }
    size_t page_size = strtoull(argv[2], NULL, 0);
    if (page_size > PAGE) inflate_count = page_size / PAGE;
    set_regions(argv + 3, argc - 3, page_size > PAGE ? MAP_HUGETLB | MAP_NORESERVE : 0);  // As Firecracker.
    hand_over(argv[1], page_size);
    char command = 's';
    while (1) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        char next;
        if (poll(&input, 1, command == 'r' ? 0 : -1) > 0) {
            if (read(0, &next, 1) <= 0) return 0;
            if (next == 'a' || next == 'd') { factor = next == 'a' ? 1 : 0x5851F42D; continue; }
            command = next;
        }
        switch (command) {
        case 's': puts("idle"); fflush(stdout); break;
        case 'r': case 'p': walk(mask + 1, CHECK | WRITE); mark("pass", generation++); break;
        case 'w': walk((mask + 1) / 16, CHECK); mark("set", generation); break;
        case 'i': case 'I': inflate(command); break;
        }
    }
}
