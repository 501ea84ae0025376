// A program that attaches, and whose every step is checked against other programs of the same workload.
//   cc -O2 witnessed.c -o witnessed && ./witnessed SOCKET runs|waits MIB WITNESS INDEX [LIE REQUEST]
//
// Each step adds 1 to a page's counter and to the number of steps, which moves as a device. So the counters' sum is the
// number of steps, unless a page was lost or is older than the device. WITNESS is a file of 4096 zeros that all programs
// share; a step sees there whether another program has made a step since this one was started.
//
// LIE is what the program does wrong at a request of the agent, named by its number: `hangup`, `exit` or `twice` (it
// answers twice). SIGUSR1 stops the workload, checks the sum, and ends with status 0 or 1.
#define _GNU_SOURCE
#include "pageferry_client.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

static struct witness { volatile uint64_t last_step[8], overlaps, wrong_pages; } *witness;
static struct pf p = {.name = "witnessed", .count = 1};
static const char *lie = "";
static uint32_t lying;
static unsigned self;
static volatile uint64_t *memory;
static uint64_t pages, steps, started;
static volatile int goes, rests = 1;

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }

static void step(void) {
    for (unsigned other = 0; other < 8; other++)
        if (other != self && witness->last_step[other] > started) __sync_fetch_and_add(&witness->overlaps, 1);
    witness->last_step[self] = now();
    volatile uint64_t *page = memory + steps * 2654435761u % pages * 512;
    uint64_t count = page[0];
    // A page that was never written holds zeros; in any other, the second word is the complement of the first.
    if ((count || page[1]) && page[1] != ~count) __sync_fetch_and_add(&witness->wrong_pages, 1);
    page[0] = count + 1;
    page[1] = ~(count + 1);
    steps++;
}

static void *work(void *unused) {
    for (;; usleep(20)) {
        rests = !goes;
        if (goes) step();
    }
    return unused;
}

static void begin(void) { started = now(); goes = 1; }
static void halt(void) { for (goes = 0, rests = 0; !rests;) usleep(20); }

// Tells the lie for a request, if it is due.
static const char *answer(uint32_t request) {
    if (request != lying) return NULL;
    if (!strcmp(lie, "exit")) _exit(3);
    if (!strcmp(lie, "hangup")) shutdown(p.socket, SHUT_RDWR);
    if (!strcmp(lie, "twice")) pf_answer(&p, request, NULL);
    return NULL;
}

static const char *prepare(void *c) { (void)c; return answer(PF_PREPARE); }
static const char *stop(void *c) { (void)c; halt(); return answer(PF_STOP); }
static const char *save(void *c, struct pf *peer) { (void)c; answer(PF_SAVE); return pf_save(peer, "steps", &steps, sizeof steps); }
static const char *run(void *c) { (void)c; begin(); return answer(PF_RUN); }
static const char *resume(void *c) { (void)c; printf("resumed\n"); begin(); return answer(PF_RESUME); }
static void complete(void *c) { (void)c; printf("complete\n"); answer(PF_COMPLETE); }
static const char *load(void *c, const char *device, const uint8_t *state, size_t bytes) {
    (void)c;
    if (strcmp(device, "steps") || bytes != sizeof steps) return "only the device 'steps' is known";
    memcpy(&steps, state, bytes);
    return answer(PF_LOAD);
}

static void check(int signal) {
    (void)signal;
    halt();
    uint64_t sum = 0;
    for (uint64_t i = 0; i < pages; i++) sum += memory[i * 512];
    if (sum != steps) fprintf(stderr, "the counters' sum is %lu after %lu steps\n", sum, steps);
    _exit(sum != steps);
}

int main(int argc, char **argv) {
    if (argc != 6 && argc != 8) return fprintf(stderr, "usage: see the head of witnessed.c\n"), 2;
    uint64_t bytes = strtoull(argv[3], NULL, 0) << 20;
    int file = memfd_create("witnessed", MFD_CLOEXEC), shared = open(argv[4], O_RDWR | O_CLOEXEC);
    if (file < 0 || ftruncate(file, bytes) || shared < 0) return perror("witnessed"), 1;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    witness = mmap(NULL, sizeof *witness, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (memory == MAP_FAILED || witness == MAP_FAILED) return perror("witnessed"), 1;
    pages = bytes / 4096;
    self = atoi(argv[5]) % 8;
    if (argc == 8) lie = argv[6], lying = atoi(argv[7]);
    setvbuf(stdout, NULL, _IOLBF, 0);

    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    p.role = strcmp(argv[2], "runs") ? PF_WAITS : PF_RUNS;
    p.region[0] = (struct pf_region){.at = (void *)memory, .bytes = bytes, .file = file};
    if (p.role == PF_RUNS) begin();
    if (pf_attach(&p, argv[1])) return fprintf(stderr, "%s\n", p.error), 1;
    static const struct pf_program program = {
        .prepare = prepare, .stop = stop, .save = save, .load = load, .run = run, .resume = resume, .complete = complete,
    };
    signal(SIGUSR1, check);
    enum pf_end end = pf_serve(&p, &program, NULL);
    printf("%s\n", end == PF_MOVED ? "released" : end == PF_STAYS ? "stays" : end == PF_NOT_USED ? "refused" : "agent gone");
    for (;;) pause();  // without its agent, a workload that runs goes on
}
