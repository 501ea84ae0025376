"""A dictionary in shared memory that moves to another host and back while it is used.

Usage: dictionary.py SOCKET runs|waits

Puts and gets continuously, and checks every value that it gets. After the dictionary has moved away, the program waits
for it at the same socket, in new memory.
"""
import hashlib
import os
import random
import struct
import sys
import threading
import zlib

import pageferry_client as pageferry


class Dictionary:
    """Keys and values in slots of 256 bytes; a key lies in the first free slot from the one that its hash names."""

    SLOT = 256
    HEAD = struct.Struct("<BB")  # the lengths of key and value; a slot with a key of length 0 is free

    def __init__(self, memory, size):
        self.memory = memory
        self.slots = size // self.SLOT

    def _find(self, key):
        """The place of a key, or of the free slot for it, and the length of its value."""
        slot = zlib.crc32(key) % self.slots
        while True:
            at = slot * self.SLOT
            key_size, value_size = self.HEAD.unpack_from(self.memory, at)
            found = self.memory[at + 2 : at + 2 + key_size]
            if not key_size or found == key:
                return at, key_size, value_size
            slot = (slot + 1) % self.slots

    def put(self, key, value):
        at, _, _ = self._find(key)
        slot = self.HEAD.pack(len(key), len(value)) + key + value
        self.memory[at : at + len(slot)] = slot

    def get(self, key):
        at, key_size, value_size = self._find(key)
        return self.memory[at + 2 + key_size : at + 2 + key_size + value_size] if key_size else None


class Workload(pageferry.Program):
    """Puts the keys 0, 1, 2, … in turn, again and again, and gets any of them in between."""

    can_verify = True
    KEYS = 6000
    SIZE = 4 << 20

    def __init__(self):
        self.memory = pageferry.Memory(self.SIZE)
        self.dictionary = Dictionary(self.memory.bytes, self.SIZE)
        self.puts = 0  # all that must move beside the memory
        self.changed = threading.Condition()
        self.is_to_stop = False
        self.thread = None

    @staticmethod
    def key(number):
        return b"key %d" % number

    @staticmethod
    def value(put):
        """The value that a put writes."""
        return b"%d %s" % (put, hashlib.blake2b(b"%d" % put).hexdigest().encode())

    def expected(self, number):
        """The value of a key after all puts so far; None if it was never put."""
        if self.puts <= number:
            return None
        return self.value(number + (self.puts - 1 - number) // self.KEYS * self.KEYS)

    def is_right(self, number):
        return self.dictionary.get(self.key(number)) == self.expected(number)

    def work(self):
        while True:
            with self.changed:
                if self.is_to_stop:
                    return
            self.dictionary.put(self.key(self.puts % self.KEYS), self.value(self.puts))
            self.puts += 1
            number = random.randrange(self.KEYS)
            if not self.is_right(number):
                print(f"the value of key {number} is wrong after {self.puts} puts", file=sys.stderr, flush=True)
                os._exit(3)  # from a thread, sys.exit() would end only the thread
            if self.puts % 5000 == 0:
                print(f"put {self.puts}", flush=True)

    def start(self):
        self.is_to_stop = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def stop(self):
        with self.changed:
            self.is_to_stop = True
        self.thread.join()
        print(f"stopped after {self.puts} puts", flush=True)

    def save(self):
        return {"puts": struct.pack("<Q", self.puts)}

    def load(self, device, state):
        if device != "puts":
            raise ValueError("this program has no such device")
        (self.puts,) = struct.unpack("<Q", state)

    def run(self):
        print(f"runs after {self.puts} puts", flush=True)
        self.start()

    def resume(self):
        print(f"resumed after {self.puts} puts", flush=True)
        self.start()

    def verify(self):
        wrong = sum(not self.is_right(number) for number in range(self.KEYS))
        return self.SIZE // 4096, wrong


def main():
    path, role = sys.argv[1], {"runs": pageferry.RUNS, "waits": pageferry.WAITS}[sys.argv[2]]
    while True:
        workload = Workload()
        if role == pageferry.RUNS:
            workload.start()
        attachment = pageferry.Attachment(path, role, "dictionary", [workload.memory.region], workload)
        print("attached", flush=True)
        end = attachment.serve()
        print(f"{end.name} after {workload.puts} puts", flush=True)
        if end is pageferry.End.AGENT_GONE and attachment.is_running:
            workload.thread.join()
        if end is not pageferry.End.MOVED:
            sys.exit(attachment.error or 1)
        role = pageferry.WAITS


if __name__ == "__main__":
    main()
