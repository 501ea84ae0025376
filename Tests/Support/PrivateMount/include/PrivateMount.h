// Small file systems for tests, which only the calling thread sees, and which vanish when the thread exits. Each
// function returns 0 or -errno.
#ifndef PAGEFERRY_PRIVATE_MOUNT_H
#define PAGEFERRY_PRIVATE_MOUNT_H

/// Gives the thread a mount namespace of its own, and mounts an empty tmpfs there with options such as `size=16k`.
int private_mount(const char *path, const char *options);
/// Makes a file system that was mounted here read-only.
int private_mount_read_only(const char *path);

#endif
