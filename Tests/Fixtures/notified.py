"""A service manager that listens for what a program tells it, as sd_notify(3) describes.

Usage: notified.py WATCHDOG PROGRAM ARGUMENTS...

WATCHDOG is the value of WATCHDOG_USEC; "-" and "busy" leave it out. With "busy", the manager's queue is full for the
first three seconds of the program. Prints each assignment that the program sends, and the program's exit status in the
end.
"""
import ctypes
import os
import signal
import socket
import sys
import threading
import time


def fill(name):
    """Fills the queue of a socket; each sender is limited too."""
    count = 1
    while count:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.connect(name)
        sender.setblocking(False)
        count = 0
        try:
            while True:
                sender.send(b"FILLER=1")
                count += 1
        except BlockingIOError:
            pass


def listen(manager, pause):
    time.sleep(pause)
    while True:
        for line in manager.recv(4096).decode().splitlines():
            print("told", line, flush=True)


def main():
    watchdog, program = sys.argv[1], sys.argv[2:]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # An abstract socket, which needs no file.
    name = f"pageferry-notified-{os.getpid()}"
    manager.bind("\0" + name)
    if watchdog == "busy":
        fill("\0" + name)
    pause = 3 if watchdog == "busy" else 0
    threading.Thread(target=listen, args=[manager, pause], daemon=True).start()
    child = os.fork()
    if child == 0:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ["NOTIFY_SOCKET"] = "@" + name
        if watchdog not in ("-", "busy"):
            os.environ.update(WATCHDOG_USEC=watchdog, WATCHDOG_PID=str(os.getpid()))
        os.execv(program[0], program)
    print("started", child, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


main()
