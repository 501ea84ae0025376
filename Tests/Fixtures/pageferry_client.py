"""Pageferry's hand-off, version 3, in one Python file without dependencies: copy it beside a program.

A program that has a workload makes an `Attachment` with the role RUNS, and one that waits for a workload makes one with
the role WAITS. Then it calls `serve()`, which answers the agent until the workload has moved. `serve()` calls the
program's methods on the calling thread; the workload runs on other threads.

    class Counter(Program):
        def stop(self): ...

    attachment = Attachment("/run/pageferry-attach.sock", RUNS, "counter", [Region(address, size, file)], Counter())
    end = attachment.serve()

A thread that touches a page that has not arrived waits for it. All other threads of Python then wait as well, since the
thread keeps the interpreter's lock.

The article AttachAProcess describes the messages, and what a program must not do meanwhile.
"""
import ctypes
import enum
import fcntl
import mmap
import os
import socket
import struct
from typing import NamedTuple

RUNS, WAITS = 1, 2  # the role: the workload runs here, or this process waits for one

# Kinds of messages.
REFUSED, DEVICE, LOAD, RUN, COMPLETE, ACCEPTED, DATA, PREPARE, STOP, SAVE = range(1, 11)
DEPART, RESUME, RELEASE, VERIFY, FREE = range(11, 16)
DONE, FAILED = 0x101, 0x102
NO_ANSWER = (REFUSED, DEVICE, DATA, FREE)

CHUNK = 1 << 20  # the most bytes in one message
# The system call, and what linux/userfaultfd.h defines.
SYS_USERFAULTFD = {"x86_64": 323}.get(os.uname().machine, 282)
USERFAULTFD_IOC_NEW, UFFDIO_API, UFFD_API = 0xAA00, 0xC018AA3F, 0xAA
MINOR_HUGETLBFS, MINOR_SHMEM = 1 << 9, 1 << 10
EVENT_FORK, EVENTS = 1 << 1, 1 << 2 | 1 << 3 | 1 << 6 | 1 << 8  # REMAP, REMOVE, UNMAP, and THREAD_ID


class Region(NamedTuple):
    """Memory that moves: a part of a memory file, or private memory if there is no file."""

    address: int
    size: int
    file: int = None  # a descriptor
    offset: int = 0  # in the file
    page_size: int = 4096


class End(enum.Enum):
    """Why `serve()` has returned."""

    # The agent has hung up. If `is_running`, the workload runs here, and `resume()` was called if it was stopped.
    AGENT_GONE = enum.auto()
    # The agent has hung up when another host was permitted to run the workload: do not run it.
    STAYS = enum.auto()
    # The workload runs elsewhere for good; another one may arrive in new memory.
    MOVED = enum.auto()
    # The migration has failed before anything ran here; attach again with new memory.
    NOT_USED = enum.auto()


class Refused(Exception):
    """The agent does not accept the hand-off, for the reason that it gives."""


class HungUp(Exception):
    """The agent has closed the connection."""


class Program:
    """What the agent may ask of a program. A method fails by an exception, whose text is the reason."""

    can_verify = False
    can_free = False

    def prepare(self):
        """Does what takes long, while the workload runs."""

    def stop(self):
        """Stops the workload. After the return, nothing executes that changes the memory or a device."""

    def save(self):
        """Returns the states of the devices: a dictionary from names to bytes."""
        return {}

    def load(self, device, state):
        """Loads the state of a device, in the order of the saves."""

    def run(self):
        """Runs the workload, whose devices have all loaded. If this fails, nothing of it has run."""

    def resume(self):
        """Runs on exactly where `stop()` has stopped."""

    def verify(self):
        """Returns how many pages of the stopped workload were checked, and how many were wrong."""

    def complete(self):
        """Learns that all pages are here, and that the userfaultfd is closed."""

    def free(self, region, page, count):
        """Drops pages of private memory."""


class Memory:
    """A mapped memory file whose pages read as zeros, for one region."""

    def __init__(self, size):
        self.size = size
        self.file = os.memfd_create("workload", os.MFD_CLOEXEC)
        os.ftruncate(self.file, size)
        self.bytes = mmap.mmap(self.file, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))

    @property
    def region(self):
        return Region(self.address, self.size, self.file)


def make_userfaultfd(features):
    """Makes a userfaultfd; the agent registers the regions with it."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # The device is for those who may open it, and the system call for root.
        device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.syscall(SYS_USERFAULTFD, flags)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "no userfaultfd; run as root, or see /dev/userfaultfd") from None
    else:
        descriptor = fcntl.ioctl(device, USERFAULTFD_IOC_NEW, flags)
        os.close(device)
    # With events, the agent notices what a program must not do meanwhile; those of forks need CAP_SYS_PTRACE.
    for wished in (EVENTS | EVENT_FORK, EVENTS, 0):
        try:
            fcntl.ioctl(descriptor, UFFDIO_API, struct.pack("<QQQ", UFFD_API, features | wished, 0))
            return descriptor
        except OSError as error:
            failure = error
    os.close(descriptor)
    raise failure


class Attachment:
    """A process that is attached to an agent."""

    def __init__(self, path, role, name, regions, program):
        """Connects to an agent's socket, and hands the memory over; raises `Refused` if the agent does not accept it.

        The agent looks for the memory in the process that calls this: do not fork between this and `serve()`.
        """
        self.program = program
        self.is_running = role == RUNS
        self.error = None  # the reason of NOT_USED, or of a resume that failed
        files = list(dict.fromkeys(region.file for region in regions if region.file is not None))
        abilities = program.can_verify + 2 * program.can_free
        encoded = name.encode()
        message = struct.pack("<IHHHHHH", 0x4F484750, 3, len(regions), role, abilities, len(encoded), 0)
        features = 0
        for region in regions:
            number = 0 if region.file is None else 1 + files.index(region.file)
            message += struct.pack("<QQIIQ", region.address, region.size, region.page_size, number, region.offset)
            if number:
                features |= MINOR_SHMEM if region.page_size == 4096 else MINOR_HUGETLBFS
        self.userfaultfd = make_userfaultfd(features) if role == WAITS else None
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(path)
            first = [] if self.userfaultfd is None else [self.userfaultfd]
            socket.send_fds(self.socket, [message + encoded], first + files)
            kind, content = self._receive()
            if kind != ACCEPTED:
                raise Refused(content.decode(errors="replace"))
        except BaseException:
            self.socket.close()
            self._close_userfaultfd()  # nothing has arrived, so no page turns into zeros
            raise

    def serve(self):
        """Answers the agent until the connection ends or the workload has moved.

        If this returns before `complete()`, keep the attachment as long as the memory is read: its userfaultfd must
        stay open.
        """
        device, state, size = None, b"", 0  # the device that arrives, and how many bytes its state has
        failure = None  # why a device did not load
        is_stopped = has_departed = False
        while True:
            try:
                kind, content = self._receive()
            except (HungUp, OSError):
                return self._end(is_stopped, has_departed)
            answer = b""
            try:
                if kind in (DEVICE, DATA):
                    if kind == DEVICE:
                        size, device, state = struct.unpack_from("<Q", content)[0], content[8:].decode(), b""
                    else:
                        state += content
                    if failure is None and len(state) == size:  # maybe 0 bytes
                        try:
                            self.program.load(device, state)
                        except Exception as error:
                            failure = error
                elif kind == LOAD:
                    if failure is not None:
                        raise failure
                elif kind == RUN:
                    self.program.run()
                    self.is_running = True
                elif kind == COMPLETE:
                    self._close_userfaultfd()
                    self.program.complete()
                elif kind == PREPARE:
                    self.program.prepare()
                elif kind == STOP:
                    self.program.stop()
                    is_stopped, self.is_running = True, False
                elif kind == SAVE:
                    for name, saved in self.program.save().items():
                        self._send(DEVICE, struct.pack("<Q", len(saved)) + name.encode())
                        for start in range(0, len(saved), CHUNK):
                            self._send(DATA, saved[start : start + CHUNK])
                elif kind == DEPART:
                    has_departed = True
                elif kind == RESUME:  # also sent when STOP was answered too late
                    if not self.is_running:
                        self.program.resume()
                    is_stopped, has_departed, self.is_running = False, False, True
                elif kind == VERIFY:
                    answer = struct.pack("<QQ", *self.program.verify())
                elif kind == FREE:
                    region, _, page, count = struct.unpack("<IIQQ", content)
                    self.program.free(region, page, count)
                elif kind == REFUSED:
                    self.error = content.decode(errors="replace")
                    self.socket.close()
                    return End.NOT_USED
                elif kind != RELEASE:
                    raise ValueError("the request is unknown")
            except HungUp:
                continue
            except Exception as error:
                reason = (str(error) or repr(error)).encode()[:1020]
                self._answer(FAILED, kind, reason)
            else:
                self._answer(DONE, kind, answer)
            if kind == RELEASE:
                self.socket.close()
                return End.MOVED

    def _end(self, is_stopped, has_departed):
        self.socket.close()
        if is_stopped and not has_departed:
            # No other host was permitted to run the workload, so it runs on here.
            try:
                self.program.resume()
                self.is_running = True
            except Exception as error:
                self.error = str(error)
        if not self.is_running:
            self._close_userfaultfd()  # nothing reads the memory, and unmapping it would wait for the agent
        return End.STAYS if has_departed else End.AGENT_GONE

    def _close_userfaultfd(self):
        if self.userfaultfd is not None:
            os.close(self.userfaultfd)
            self.userfaultfd = None

    def _answer(self, answer, request, content):
        try:
            if request not in NO_ANSWER:
                self._send(answer, struct.pack("<I", request) + content)
        except HungUp:
            pass  # the next receive shows it

    def _send(self, kind, content):
        try:
            self.socket.sendall(struct.pack("<II", kind, len(content)) + content)
        except OSError as error:
            raise HungUp from error

    def _receive(self):
        kind, size = struct.unpack("<II", self._take(8))
        return kind, self._take(size)

    def _take(self, size):
        parts = bytearray()
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise HungUp
            parts += part
        return bytes(parts)
