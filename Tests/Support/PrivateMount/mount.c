#include "PrivateMount.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>

int private_mount(const char *path, const char *options) {
    if (unshare(CLONE_NEWNS) < 0) return -errno;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -errno;
    return mount("none", path, "tmpfs", 0, options) < 0 ? -errno : 0;
}

int private_mount_read_only(const char *path) {
    return mount("none", path, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 ? -errno : 0;
}
