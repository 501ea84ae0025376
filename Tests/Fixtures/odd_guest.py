"""A process that hands over its memory as Firecracker does, with memory that is registered in an unusual way.

Usage: odd_guest.py SOCKET SNAPSHOT minor|huge-minor|reserved|protected|gone

The memory is as large as the snapshot.
minor, huge-minor: the memory is a memory file with some pages of its own, registered for minor faults as well. At a
    signal the process checks every page, unmaps all of them, and checks them again.
reserved: private huge pages with a reservation. The process checks every page.
protected: the process write-protects a page that has arrived, and writes to it. At a signal it ends that.
gone: the process closes its own copy of the userfaultfd, and reads a page at a signal.
The signal is SIGUSR1. In the end the process waits for one more.
"""
import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading

import pageferry_client as pageferry

UFFDIO_REGISTER, UFFDIO_WRITEPROTECT = 0xC020AA00, 0xC018AA06
MISSING, WRITE_PROTECT, MINOR = 1, 2, 4
EVENT_REMOVE, FLAG_WP, MINOR_HUGETLBFS, MINOR_SHMEM = 1 << 3, 1 << 0, 1 << 9, 1 << 10
MFD_HUGETLB, MAP_HUGETLB = 4, 0x40000
OWN = 0xAB
libc = ctypes.CDLL(None)


def go_on():
    signal.sigwait({signal.SIGUSR1})


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    path, snapshot, kind = sys.argv[1:]
    with open(snapshot, "rb") as file:
        content = file.read()
    is_file = kind.endswith("minor")
    page = 2 << 20 if kind in ("huge-minor", "reserved") else 4096
    own = [i for i in range(len(content) // page) if i % 3 == 0] if is_file else []
    if is_file:
        descriptor = os.memfd_create("guest", MFD_HUGETLB if page > 4096 else 0)
        os.ftruncate(descriptor, len(content))
        # The process fills the pages through another mapping than the one that it hands over.
        with mmap.mmap(descriptor, len(content)) as filled:
            for i in own:
                filled[i * page : (i + 1) * page] = bytes([OWN]) * page
        memory = mmap.mmap(descriptor, len(content))
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (MAP_HUGETLB if page > 4096 else 0)
        memory = mmap.mmap(-1, len(content), flags)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    pageferry.EVENTS = pageferry.EVENT_FORK = 0
    wished = {"minor": MINOR_SHMEM, "huge-minor": MINOR_HUGETLBFS, "protected": FLAG_WP}.get(kind, 0)
    userfaultfd = pageferry.make_userfaultfd(EVENT_REMOVE | wished)
    mode = MISSING | {"minor": MINOR, "huge-minor": MINOR, "protected": WRITE_PROTECT}.get(kind, 0)
    fcntl.ioctl(userfaultfd, UFFDIO_REGISTER, struct.pack("<QQQQ", address, len(memory), mode, 0))
    region = {"base_host_virt_addr": address, "size": len(memory), "offset": 0, "page_size": page}
    agent = socket.socket(socket.AF_UNIX)
    agent.connect(path)
    socket.send_fds(agent, [json.dumps([region]).encode()], [userfaultfd])

    def is_wrong(i):
        expected = bytes([OWN]) * page if i in own else content[i * page : (i + 1) * page]
        return memory[i * page : (i + 1) * page] != expected

    def check():
        wrong = sum(is_wrong(i) for i in range(len(content) // page))
        print(f"{wrong} pages are wrong", flush=True)

    def protect(is_protected):
        fcntl.ioctl(userfaultfd, UFFDIO_WRITEPROTECT, struct.pack("<QQQ", address, page, int(is_protected)))

    if is_file:
        go_on()
        check()
        memory.madvise(mmap.MADV_DONTNEED)
        check()
    elif kind == "reserved":
        check()
    elif kind == "protected":
        print("read", memory[0], flush=True)
        protect(True)
        # memset is called without Python's lock, so that the other thread goes on.
        writer = threading.Thread(target=libc.memset, args=(ctypes.c_void_p(address), 7, 1))
        writer.start()
        go_on()
        protect(False)
        writer.join()
        print("written", memory[0], flush=True)
    else:
        os.close(userfaultfd)
        agent.recv(1)
        print("hung up", flush=True)
        go_on()
        print("read", memory[0], flush=True)
    go_on()


main()
