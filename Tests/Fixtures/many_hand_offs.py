"""A process that hands its memory over as Firecracker does, more than once.

Usage: many_hand_offs.py SOCKET COUNT same|other|child|next

All hand-offs but the first have a copy of the same userfaultfd, another userfaultfd, or come from a child with a copy. With
"next", the process has another userfaultfd each time, after it has read all of the memory before.
The program touches its memory before the hand-offs after the first, and again after them. Then it waits to be killed.
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

import pageferry_client as pageferry

PAGE, PAGES = 4096, 16
UFFDIO_REGISTER = 0xC020AA00
sockets = []


def memory():
    area = mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    userfaultfd = pageferry.make_userfaultfd(0)
    fcntl.ioctl(userfaultfd, UFFDIO_REGISTER, struct.pack("<QQQQ", address, len(area), 1, 0))
    return area, address, userfaultfd


def hand_over(path, address, userfaultfd):
    region = {"base_host_virt_addr": address, "size": PAGES * PAGE, "offset": 0, "page_size": PAGE}
    agent = socket.socket(socket.AF_UNIX)
    agent.connect(path)
    socket.send_fds(agent, [json.dumps([region]).encode()], [userfaultfd])
    sockets.append(agent)
    return agent


def main():
    path, count, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    pageferry.EVENTS = pageferry.EVENT_FORK = 0
    area, address, userfaultfd = memory()
    hand_over(path, address, userfaultfd)
    print("read", area[0], flush=True)
    others = []
    for _ in range(count - 1):
        if kind == "other":
            others.append(memory())
            agent = hand_over(path, *others[-1][1:])
        elif kind == "child":
            child = os.fork()
            if child == 0:
                hand_over(path, address, userfaultfd).recv(1)
                os._exit(0)
            print("child", os.waitpid(child, 0)[1], flush=True)
            continue
        elif kind == "next":
            others.append([area[page * PAGE] for page in range(PAGES)])
            area, address, userfaultfd = memory()
            hand_over(path, address, userfaultfd)
            print("next", area[0], flush=True)
            continue
        else:
            agent = hand_over(path, address, os.dup(userfaultfd))
        # The handler hangs up when it has refused the hand-off.
        print("hung up" if agent.recv(1) == b"" else "answered", flush=True)
    print("read again", area[PAGE], flush=True)
    signal.pause()


main()
