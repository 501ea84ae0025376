"""A service manager that starts a program with descriptors, as sd_listen_fds(3) describes.

Usage: service_manager.py DESCRIPTORS COUNT NAMES PROGRAM ARGUMENTS...

DESCRIPTORS are separated by commas, and given from number 3 on:
  stream:PATH  listens     bound:PATH  does not listen     dgram:PATH     tcp     pair     pipe     file     none
COUNT is the value of LISTEN_FDS, and NAMES that of LISTEN_FDNAMES; "-" leaves a variable out. With COUNT "other",
LISTEN_PID is that of another process.

Prints the program's process, waits for its end, and prints whether the first socket still listens.
"""
import ctypes
import fcntl
import os
import signal
import socket
import sys

kept = []


def make(kind):
    kind, _, path = kind.partition(":")
    if kind == "none":
        return None
    if kind == "pipe":
        kept.append(os.pipe())
        return kept[-1][0]
    if kind == "file":
        return os.open("/dev/null", os.O_RDONLY)
    if kind == "pair":
        kept.append(socket.socketpair())
        return kept[-1][0].fileno()
    if kind == "tcp":
        made = socket.create_server(("127.0.0.1", 0))
    else:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "dgram" else socket.SOCK_STREAM)
        made.bind(path)
        if kind == "stream":
            made.listen()
            made.setblocking(False)
    kept.append(made)
    return made.fileno()


def main():
    kinds, count, names, program = sys.argv[1].split(","), sys.argv[2], sys.argv[3], sys.argv[4:]
    descriptors = [make(kind) for kind in kinds]
    child = os.fork()
    if child == 0:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        above = [None if d is None else fcntl.fcntl(d, fcntl.F_DUPFD_CLOEXEC, 100) for d in descriptors]
        os.closerange(3, 100)
        for number, descriptor in enumerate(above, 3):
            if descriptor is not None:
                os.dup2(descriptor, number)
        os.environ["LISTEN_PID"] = str(os.getpid() if count != "other" else os.getppid())
        if count != "-":
            os.environ["LISTEN_FDS"] = str(len(kinds)) if count == "other" else count
        if names != "-":
            os.environ["LISTEN_FDNAMES"] = names
        os.execv(program[0], program)
    print("started", child, flush=True)
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
    if kinds[0].startswith("stream:"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(kinds[0].partition(":")[2])
        print("still listens", flush=True)


main()
