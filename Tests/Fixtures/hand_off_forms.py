"""A process that hands over its memory as Firecracker does, in a form of the hand-off, and checks every page.

Usage: hand_off_forms.py SOCKET SNAPSHOT FORM

FORM is parts, stratovirt, space, regions, hang-up, stratovirt-hang-up, relay, late-relay, ended-relay, closed, second or
dropped.

The snapshot has 4096 pages, which may differ from the memory in nothing. With a hang-up, the process closes the
connection and its own copy of the userfaultfd before it reads a page. A relay is a child that hands over the memory of
this process and exits; a late one exits after some pages were read. With "closed", the process closes its own copy of
the userfaultfd, reads some pages, prints "read", and waits for SIGUSR1 before it reads all of them. With "second", it does
the same, but keeps its copy, and hands other memory over after the signal, for which it gets no answer. An ended relay
is a late one; after its end, this process prints "read" and waits as with "closed". With "dropped", the process does the
same as with "closed", but keeps its copy, and becomes user 65534 before it hands its memory over.
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
import time

import pageferry_client as pageferry

PAGE, PAGES = 4096, 4096
UFFDIO_REGISTER = 0xC020AA00
EVENT_REMOVE = 1 << 3


def main():
    path, snapshot, form = sys.argv[1:]
    with open(snapshot, "rb") as file:
        content = file.read(PAGE * PAGES)
    # With many regions, every second page of the mapping is none, so that no region is the continuation of another.
    step = 2 if form == "regions" else 1
    memory = mmap.mmap(-1, step * PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # Firecracker asks for no other events.
    pageferry.EVENTS = pageferry.EVENT_FORK = 0
    userfaultfd = pageferry.make_userfaultfd(EVENT_REMOVE)
    fcntl.ioctl(userfaultfd, UFFDIO_REGISTER, struct.pack("<QQQQ", address, len(memory), 1, 0))
    count, pages = (PAGES, 1) if form == "regions" else (1, PAGES)
    regions = [
        {"base_host_virt_addr": address + step * i * PAGE, "size": pages * PAGE, "offset": i * PAGE, "page_size": PAGE}
        for i in range(count)
    ]
    message = regions
    if form.startswith("stratovirt"):
        message = {"mappings": [{key.replace("_", "-"): value for key, value in region.items()} for region in regions]}
    text = json.dumps(message).encode()
    if form == "space":
        text = b"\n" + text + b"\0"
    if form == "dropped":
        os.setresuid(65534, 65534, 65534)
    end, relay_end = os.pipe()
    relay = os.fork() if form.endswith("relay") else None
    if not relay:
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(path)
        parts = [text[:10], text[10:25], text[25:]] if form == "parts" else [text]
        for part in parts:
            descriptors = [userfaultfd] if part is parts[0] else []
            socket.send_fds(agent, [part], descriptors)
            time.sleep(0.05)
        if relay == 0:
            os.close(relay_end)
            os.read(end, 1 if form in ("late-relay", "ended-relay") else 0)
            os._exit(0)
    os.close(end)
    if "hang-up" in form:
        agent.close()
    if "hang-up" in form or relay or form == "closed":
        os.close(userfaultfd)

    def is_wrong(i):
        return memory[step * i * PAGE : (step * i + 1) * PAGE] != content[i * PAGE : (i + 1) * PAGE]

    wrong = 0
    if form in ("late-relay", "ended-relay"):
        wrong += sum(is_wrong(i) for i in range(100))
        os.write(relay_end, b"x")
    if form in ("ended-relay", "closed", "second", "dropped"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        if relay:
            os.waitpid(relay, 0)
            relay = None
        wrong += sum(is_wrong(i) for i in range(100))
        print("read", flush=True)
        signal.sigwait([signal.SIGUSR1])
    if form == "second":
        other = mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        place = ctypes.addressof(ctypes.c_char.from_buffer(other))
        second = pageferry.make_userfaultfd(EVENT_REMOVE)
        fcntl.ioctl(second, UFFDIO_REGISTER, struct.pack("<QQQQ", place, len(other), 1, 0))
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(path)
        region = {"base_host_virt_addr": place, "size": len(other), "offset": 0, "page_size": PAGE}
        socket.send_fds(agent, [json.dumps([region]).encode()], [second])
        # The handler hangs up when it has refused the hand-off.
        agent.recv(1)
    if relay:
        os.waitpid(relay, 0)
    # The end of a process or of a connection takes a moment to be noticed.
    time.sleep(0.3 if "hang-up" in form or relay else 0)
    wrong += sum(is_wrong(i) for i in range(PAGES))
    print(f"{wrong} of {PAGES} pages are wrong")


main()
