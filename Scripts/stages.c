// Records when the threads that serve faults enter and leave the kernel. Scripts/stages preloads this library.
// Each process writes one file of `struct record` to the folder PAGEFERRY_STAGES. Times are nanoseconds of
// CLOCK_MONOTONIC, which all processes of a host share, so that the records of several processes can be merged.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct record { uint64_t enter, leave; int64_t result; char call[8]; char thread[16]; };
enum { CAPACITY = 1 << 20 };
static struct record *records;
static uint64_t used;
static int (*real_clock)(clockid_t, struct timespec *);
static __thread char name[16];

static uint64_t now(void) {
  struct timespec t;
  real_clock(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
  real_clock = dlsym(RTLD_NEXT, "clock_gettime");
  const char *folder = getenv("PAGEFERRY_STAGES");
  char path[4096];
  if (!folder || snprintf(path, sizeof path, "%s/%d", folder, getpid()) >= (int)sizeof path) return;
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, CAPACITY * sizeof *records)) return;
  void *map = mmap(0, CAPACITY * sizeof *records, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (map != MAP_FAILED) records = map;
  close(file);
}

static int counts(void) {
  if (!records) return 0;
  if (!name[0] && pthread_getname_np(pthread_self(), name, sizeof name)) name[0] = '?';
  return !strcmp(name, "faults") || !strcmp(name, "urgent-serve") || !strncmp(name, "work-", 5);
}

static void note(const char *call, uint64_t enter, uint64_t leave, int64_t result) {
  uint64_t at = __atomic_fetch_add(&used, 1, __ATOMIC_RELAXED);
  if (at >= CAPACITY) return;
  struct record *r = &records[at];
  r->enter = enter, r->leave = leave, r->result = result;
  strncpy(r->call, call, sizeof r->call), memcpy(r->thread, name, sizeof name);
}

#define CALL(type, function, parameters, arguments)                    \
  type function parameters {                                           \
    static type(*real) parameters;                                     \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #function); \
    if (!counts()) return real arguments;                              \
    uint64_t enter = now();                                            \
    type result = real arguments;                                      \
    note(#function, enter, now(), result);                             \
    return result;                                                     \
  }

CALL(ssize_t, read, (int fd, void *to, size_t count), (fd, to, count))
CALL(ssize_t, recv, (int fd, void *to, size_t count, int flags), (fd, to, count, flags))
CALL(ssize_t, send, (int fd, const void *from, size_t count, int flags), (fd, from, count, flags))
CALL(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))

int ioctl(int fd, unsigned long request, ...) {
  static int (*real)(int, unsigned long, ...);
  if (!real) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  if (!counts()) return real(fd, request, argument);
  uint64_t enter = now();
  int result = real(fd, request, argument);
  note("ioctl", enter, now(), result);
  return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_clock) real_clock = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real_clock(clock, time);
  if (clock == CLOCK_MONOTONIC && counts() && name[0] == 'w') {
    uint64_t at = (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
    note("clock", at, at, 0);
  }
  return result;
}
