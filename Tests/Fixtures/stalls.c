// A program that attaches, and measures how long its threads wait for pages.
//   cc -O2 stalls.c -o stalls && ./stalls SOCKET runs|waits
//
// Three threads touch every page once, in random order. When all have finished, the program prints for each thread its
// id, the number of its accesses that took longer than 0.2 ms, and their sum in microseconds; and for all threads
// together the median and the 99th percentile of these accesses.
#define _GNU_SOURCE
#include "pageferry_client.h"
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGES = 3072, THREADS = 3, EACH = PAGES / THREADS };

static struct pf p = {.name = "stalls", .count = 1};
static volatile uint8_t *memory;
static double stalls[PAGES];
static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread[THREADS];

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }

static void *touch(void *first) {
    unsigned order[EACH], seed = 1 + (unsigned)(uintptr_t)first;
    double sum = 0;
    int own = 0;
    for (unsigned i = 0; i < EACH; i++) {
        unsigned j = rand_r(&seed) % (i + 1);
        order[i] = order[j], order[j] = i;
    }
    for (unsigned i = 0; i < EACH; i++) {
        double begin = now();
        if (!memory[((uintptr_t)first * EACH + order[i]) * 4096ul]) printf("wrong page\n");
        double end = now() - begin;
        if (end < 200) continue;
        sum += end, own++;
        pthread_mutex_lock(&lock);
        stalls[count++] = end;
        pthread_mutex_unlock(&lock);
    }
    printf("thread %ld %d %.0f\n", syscall(SYS_gettid), own, sum);
    return NULL;
}

static int compare(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static void *work(void *unused) {
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, touch, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    qsort(stalls, count, sizeof *stalls, compare);
    printf("stalls %d %.0f %.0f\n", count, stalls[count / 2], stalls[count * 99 / 100]);
    return unused;
}

static const char *run(void *c) { (void)c; pthread_t all; pthread_create(&all, NULL, work, NULL); return NULL; }
static const char *stop(void *c) { (void)c; return NULL; }

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: see the head of stalls.c\n"), 2;
    int file = memfd_create("stalls", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, PAGES * 4096)) return perror("stalls"), 1;
    memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) return perror("stalls"), 1;
    p.role = strcmp(argv[2], "runs") ? PF_WAITS : PF_RUNS;
    p.region[0] = (struct pf_region){.at = (void *)memory, .bytes = PAGES * 4096, .file = file};
    if (p.role == PF_RUNS) for (unsigned i = 0; i < PAGES; i++) memory[i * 4096ul] = 1 + i % 255;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (pf_attach(&p, argv[1])) return fprintf(stderr, "%s\n", p.error), 1;
    printf("attached\n");
    static const struct pf_program program = {.stop = stop, .run = run};
    pf_serve(&p, &program, NULL);
    for (;;) pause();
}
