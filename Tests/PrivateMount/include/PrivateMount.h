// Small file systems for tests, which only the calling thread sees and which go with it. Each returns 0, or -errno.
#ifndef PAGEFERRY_PRIVATE_MOUNT_H
#define PAGEFERRY_PRIVATE_MOUNT_H

/// Gives the thread mounts of its own and mounts an empty file system, held in memory, such as `size=16k`.
int private_mount(const char *path, const char *options);
/// Lets nothing more be written to a file system that was mounted here.
int private_mount_read_only(const char *path);

#endif
