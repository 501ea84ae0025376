"""A service manager that keeps a program's descriptors, as the descriptor store of systemd does.

Usage: descriptor_store.py SOCKET FOREIGN PROGRAM ARGUMENTS...

SOCKET is the path at which the program's first descriptor listens. With FOREIGN "-", the program gets what it has
stored before, and otherwise also an eventfd of the name FOREIGN. The program is started again when a signal has killed
it. Prints "started PROCESS", "stored NAME", "removed NAME" and "ended STATUS".
"""
import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading

stored = []


def listen(manager):
    while True:
        data, descriptors, _, _ = socket.recv_fds(manager, 4096, 16)
        fields = dict(line.split("=", 1) for line in data.decode().splitlines())
        name = fields.get("FDNAME", "stored")
        if "FDSTORE" in fields:
            stored.extend((name, descriptor) for descriptor in descriptors)
            print("stored", name, flush=True)
        elif "FDSTOREREMOVE" in fields:
            for entry in [entry for entry in stored if entry[0] == name]:
                stored.remove(entry)
                os.close(entry[1])
            print("removed", name, flush=True)


def start(listener, program, address):
    given = [("sock", listener.fileno())] + stored
    child = os.fork()
    if child == 0:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 500) for _, descriptor in given]
        os.closerange(3, 500)
        for number, descriptor in enumerate(above, 3):
            os.dup2(descriptor, number)
        os.environ.update(
            LISTEN_PID=str(os.getpid()),
            LISTEN_FDS=str(len(given)),
            LISTEN_FDNAMES=":".join(name for name, _ in given),
            NOTIFY_SOCKET=address,
        )
        os.execv(program[0], program)
    print("started", child, flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    path, foreign, program = sys.argv[1], sys.argv[2], sys.argv[3:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # An abstract socket, which needs no file.
    name = f"pageferry-manager-{os.getpid()}"
    manager.bind("\0" + name)
    threading.Thread(target=listen, args=[manager], daemon=True).start()
    if foreign != "-":
        stored.append((foreign, os.eventfd(0)))
    while True:
        status = start(listener, program, "@" + name)
        print("ended", status, flush=True)
        if status >= 0:
            sys.exit(status)


main()
