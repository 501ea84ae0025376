// A program that attaches and does to its memory, while pages are missing, what it must not do.
//
//   cc -O2 -pthread careless.c -o careless
//   ./careless SOCKET runs private|file ACTION       attaches with memory that it has filled
//   ./careless SOCKET waits private|file ACTION      waits for this memory, and carries out the action when it runs
//
// Actions: drop, unmap, fork, remap. On standard output, a line for each thing that was found.
#define _GNU_SOURCE
#include "pageferry_client.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 4096, FIRST = 2000, COUNT = 8 };  // the action is done to COUNT pages

static uint8_t *memory;
static const char *action;
static pid_t child;

static int expected(int page) { return page % 250 + 1; }
static int is_touched(int page) { return page >= FIRST && page < FIRST + COUNT; }
static void say(const char *what, int number) { printf("%s %d\n", what, number), fflush(stdout); }

// Reads all pages but those that the action has taken away.
static void read_rest(void) {
    int wrong = 0;
    for (int page = 0; page < PAGES; page++)
        if (!is_touched(page) || !strcmp(action, "fork")) wrong += memory[page * PAGE + page % PAGE] != expected(page);
    say("wrong pages", wrong);
}

static void *work(void *unused) {
    (void)unused;
    uint8_t *at = memory + FIRST * PAGE;
    say("byte before", memory[PAGE]);
    if (!strcmp(action, "drop")) {
        if (madvise(at, COUNT * PAGE, MADV_DONTNEED)) return perror("madvise"), NULL;
        say("byte that was dropped", at[PAGE]);
    } else if (!strcmp(action, "unmap")) {
        if (munmap(at, COUNT * PAGE)) return perror("munmap"), NULL;
    } else if (!strcmp(action, "remap")) {
        uint8_t *to = mmap(NULL, COUNT * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        to = mremap(at, COUNT * PAGE, COUNT * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        if (to == MAP_FAILED) return perror("mremap"), NULL;
        say("remapped", 0);
        say("byte that was moved", to[PAGE]);
    } else {
        child = fork();
        if (child < 0) return perror("fork"), NULL;
        if (!child) _exit(at[PAGE]);
        say("child", child);
    }
    read_rest();
    return NULL;
}

static const char *load(void *unused, const char *device, const uint8_t *state, size_t bytes) {
    (void)unused, (void)device, (void)state, (void)bytes;
    return NULL;
}

static const char *run(void *unused) {
    pthread_t thread;
    return pthread_create(&thread, NULL, work, unused) ? "no thread" : NULL;
}

static void complete(void *unused) {
    (void)unused;
    if (child) say("child has ended", waitpid(child, NULL, WNOHANG) != 0);
    if (child) kill(child, SIGKILL), waitpid(child, NULL, 0);
    say("complete", 0);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: careless SOCKET runs|waits private|file ACTION\n"), 2;
    int runs = !strcmp(argv[2], "runs"), file = -1;
    action = argv[4];
    if (!strcmp(argv[3], "file") && (file = memfd_create("careless", MFD_CLOEXEC)) < 0) return perror("memfd"), 1;
    if (file >= 0 && ftruncate(file, PAGES * PAGE)) return perror("memfd"), 1;
    int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, file, 0);
    if (memory == MAP_FAILED) return perror("mmap"), 1;
    for (int page = 0; runs && page < PAGES; page++) memset(memory + page * PAGE, expected(page), PAGE);

    static const struct pf_program program = {.load = load, .run = run, .complete = complete};
    struct pf p = {.role = runs ? PF_RUNS : PF_WAITS, .name = "careless", .count = 1};
    p.region[0] = (struct pf_region){.at = memory, .bytes = PAGES * PAGE, .file = file < 0 ? 0 : file};
    if (pf_attach(&p, argv[1])) return fprintf(stderr, "%s\n", p.error), 1;
    say("attached", 0);
    enum pf_end end = pf_serve(&p, &program, NULL);
    if (end == PF_MOVED) return 0;
    say("served", end);
    for (;;) pause();  // the workload runs on
}
