// A disk on which each fsync(2) takes the seconds that SLOW_FSYNC says, for LD_PRELOAD.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fsync(int descriptor) {
    sleep(atoi(getenv("SLOW_FSYNC")));
    return (int)syscall(SYS_fsync, descriptor);
}
