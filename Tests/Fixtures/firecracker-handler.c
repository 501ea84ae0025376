// A minimal page-fault handler for a restored Firecracker, which serves pages from the memory file until Firecracker
// hangs up.
//   cc -O2 firecracker-handler.c -o handler && ./handler SOCKET FILE [WRONG_PAGE]    (that page is served as zeros)
// The handler prints these lines, with hexadecimal numbers:
//   listening
//   message TEXT                the received hand-off
//   removed FIRST_PAGE COUNT    a REMOVE event
//   faults COUNT                at the end
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAGE = 4096, MAX_REGIONS = 8, MAX_EVENTS = 64 };
static struct { uint64_t address, bytes, offset; } region[MAX_REGIONS];
static int regions, uffd;
static uint64_t page_size;
static char *file, *removed;

static void fail(const char *what) { fprintf(stderr, "handler: %s: %s\n", what, strerror(errno)); exit(1); }

// Returns the page of the memory file at an address.
static size_t page_at(uint64_t address) {
    for (int i = 0; i < regions; i++)
        if (address - region[i].address < region[i].bytes) return (region[i].offset + (address - region[i].address)) / PAGE;
    errno = EFAULT;
    fail("an address outside of all regions");
    return 0;
}

static int take_hand_off(int s) {
    static char text[65536];
    union { struct cmsghdr h; char space[CMSG_SPACE(sizeof uffd)]; } control;
    struct iovec iov = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(s, &message, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&message)) fail("hand-off");
    memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof uffd);
    printf("message %s\n", text);
    for (char *at = text; regions < MAX_REGIONS && (at = strchr(at, '{')); at++, regions++)
        if (sscanf(at, "{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":%lu,\"page_size\":%lu", &region[regions].address, &region[regions].bytes, &region[regions].offset, &page_size) != 4) fail(text);
    return regions;
}

static int place(size_t page, uint64_t address, size_t wrong) {
    static char zeros[2 << 20];
    struct uffdio_copy copy = {.dst = address, .src = (uintptr_t)(removed[page] || page == wrong ? zeros : file + page * PAGE), .len = page_size};
    return !ioctl(uffd, UFFDIO_COPY, &copy) || errno == EEXIST;
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: handler SOCKET FILE [WRONG_PAGE]\n"); return 2; }
    size_t wrong = argc > 3 ? strtoull(argv[3], NULL, 0) : SIZE_MAX, faults = 0, waiting = 0;
    struct stat status;
    int memory = open(argv[2], O_RDONLY | O_CLOEXEC), listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (memory < 0 || fstat(memory, &status)) fail(argv[2]);
    file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, memory, 0);
    removed = calloc(status.st_size / PAGE, 1);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
    if (file == MAP_FAILED || bind(listener, (void *)&at, sizeof at) || listen(listener, 1)) fail(argv[1]);
    setlinebuf(stdout);
    puts("listening");
    int s = accept(listener, NULL, NULL);
    if (s < 0 || !take_hand_off(s)) fail("accept");
    uint64_t wait[MAX_EVENTS];
    while (1) {
        struct pollfd ready[] = {{.fd = s, .events = POLLIN}, {.fd = uffd, .events = POLLIN}};
        poll(ready, 2, waiting ? 1 : -1);
        if (ready[0].revents) break;
        struct uffd_msg message[MAX_EVENTS / 2];
        ssize_t got = waiting > MAX_EVENTS / 2 ? 0 : read(uffd, message, sizeof message);
        // Read all events first: while a REMOVE is unread, no page can be placed.
        for (ssize_t i = 0; i < got / (ssize_t)sizeof *message; i++) {
            if (message[i].event == UFFD_EVENT_PAGEFAULT) {
                wait[waiting++] = message[i].arg.pagefault.address & -page_size;
                faults++;
            } else if (message[i].event == UFFD_EVENT_REMOVE) {
                uint64_t start = message[i].arg.remove.start, end = message[i].arg.remove.end;
                for (uint64_t address = start; address < end; address += PAGE) removed[page_at(address)] = 1;
                printf("removed %zx %zx\n", page_at(start), (size_t)(end - start) / PAGE);
            }
        }
        size_t left = 0;
        for (size_t i = 0; i < waiting; i++)
            if (!place(page_at(wait[i]), wait[i], wrong)) {
                if (errno != EAGAIN) fail("UFFDIO_COPY");
                wait[left++] = wait[i];
            }
        waiting = left;
    }
    printf("faults %zx\n", faults);
    return 0;
}
