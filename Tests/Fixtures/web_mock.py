#!/usr/bin/env python3
"""A server that plays the HTTP side of agents, of a handler and of a server, for tests of the live page and the report.

    web_mock.py [--port PORT]        prints its address; needs only Python

Each scenario is a page of its own at /SCENARIO/, and / lists all of them. The token of actions is `secret`.

    POST /SCENARIO/mock/drop?seconds=N   closes the streams of events, and refuses requests for N seconds
    POST /SCENARIO/mock/restart          begins the scenario again
"""

import argparse
import base64
import http.server
import json
import math
import pathlib
import queue
import random
import re
import threading
import time
import urllib.parse

PAGE = pathlib.Path(__file__).resolve().parents[2] / "Sources/Control/Web/Page"
TOKEN = "secret"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
KINDS[".svg"] = "image/svg+xml"
TICK = 0.5

STATES = [
    "none",
    "setup",
    "active",
    "pre-switchover",
    "device",
    "postcopy-device",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover-setup",
    "postcopy-recover",
    "completed",
    "cancelling",
    "cancelled",
    "failed",
]
SOURCE_EDGES = [
    ("none", "setup"),
    ("setup", "active"),
    ("active", "pre-switchover"),
    ("active", "device"),
    ("pre-switchover", "device"),
    ("device", "postcopy-device"),
    ("postcopy-device", "postcopy-active"),
    ("postcopy-active", "completed"),
    ("postcopy-active", "cancelling"),
    ("postcopy-active", "postcopy-paused"),
    ("cancelling", "postcopy-active"),
    ("cancelling", "postcopy-paused"),
    ("postcopy-paused", "postcopy-recover-setup"),
    ("postcopy-recover-setup", "postcopy-recover"),
    ("postcopy-recover-setup", "postcopy-paused"),
    ("postcopy-recover", "postcopy-active"),
    ("postcopy-recover", "postcopy-paused"),
    ("postcopy-recover", "cancelling"),
] + [
    (state, end)
    for end in ("cancelled", "failed")
    for state in STATES[1:10] + ["cancelling"]
    if state != "postcopy-recover-setup"
]
DESTINATION = [
    state for state in STATES if state not in ("pre-switchover", "device", "postcopy-recover-setup", "cancelling")
]
DESTINATION_EDGES = [
    ("none", "setup"),
    ("setup", "active"),
    ("active", "postcopy-device"),
    ("postcopy-device", "postcopy-active"),
    ("postcopy-active", "completed"),
    ("postcopy-active", "postcopy-paused"),
    ("postcopy-paused", "postcopy-recover"),
    ("postcopy-recover", "postcopy-active"),
    ("postcopy-recover", "postcopy-paused"),
    ("active", "failed"),
    ("active", "cancelled"),
    ("postcopy-device", "failed"),
    ("postcopy-device", "cancelled"),
    ("postcopy-paused", "failed"),
]
PAGE_SIZE = 4096


def now_ms():
    return int(time.time() * 1000)


class Stalls:
    """Stalls in buckets, 16 for each power of two."""

    def __init__(self, chance):
        self.chance, self.buckets, self.count, self.longest = chance, {}, 0, 0.0

    def add(self, number, median=88.0):
        for _ in range(number):
            us = 61 + self.chance.lognormvariate(math.log(median - 61), 0.55)
            if self.chance.random() < 0.012:
                us *= self.chance.uniform(2, 30)
            place = math.ceil(math.log2(us) * 16)
            self.buckets[place] = self.buckets.get(place, 0) + 1
            self.count += 1
            self.longest = max(self.longest, us)

    def percentile(self, share):
        left = share * self.count
        for place in sorted(self.buckets):
            left -= self.buckets[place]
            if left <= 0:
                return round(min(2 ** (place / 16), self.longest), 1)
        return round(self.longest, 1)

    def histogram(self, per_octave=1):
        merged = {}
        for place, count in self.buckets.items():
            at = math.ceil(place * per_octave / 16)
            merged[at] = merged.get(at, 0) + count
        return [[round(2 ** (at / per_octave), 2), merged[at]] for at in sorted(merged)]

    def summary(self):
        return {
            "count": self.count,
            "p50_us": self.percentile(0.5),
            "p90_us": self.percentile(0.9),
            "p99_us": self.percentile(0.99),
            "p999_us": self.percentile(0.999),
            "max_us": round(self.longest, 1),
            "floor_us": 62.0,
            "histogram": self.histogram(),
        }


class Memory:
    """8 GiB in 2048 cells, each with the number of its pages of each kind."""

    CELLS, PER_CELL = 2048, 1024
    # The last cell of the second region is not full.
    VIDEO_PAGES = 32 * PER_CELL - 24

    def __init__(self, chance):
        self.chance = chance
        self.cells = [[self.PER_CELL, 0, 0, 0, 0, 0] for _ in range(self.CELLS)]
        self.hot = [chance.randrange(self.CELLS) for _ in range(90)]
        self.push_at = 0
        self.is_zero = [int(cell / 37) % 5 == 3 for cell in range(self.CELLS)]

    def take(self, cell, kind, number):
        counts = self.cells[cell]
        number = min(number, counts[0])
        counts[0] -= number
        counts[kind] += number
        return number

    def advance(self, pushed_cells, faults):
        changed = set()
        for cell in range(self.CELLS):
            if self.cells[cell][1]:
                self.cells[cell][2] += self.cells[cell][1]
                self.cells[cell][1] = 0
                changed.add(cell)
        for _ in range(faults):
            cell = self.chance.choice(self.hot)
            if self.cells[cell][0] == 0:
                continue
            self.take(cell, 2, 1)
            self.take(cell, 3, self.chance.randrange(4, 24))
            changed.add(cell)
        for _ in range(pushed_cells):
            if self.push_at >= self.CELLS:
                break
            cell = self.push_at
            zero = self.PER_CELL if self.is_zero[cell] else self.chance.randrange(0, 160)
            self.take(cell, 5, zero)
            self.take(cell, 4, self.PER_CELL)
            changed.add(cell)
            self.push_at += 1
        for cell in self.chance.sample(self.hot, 8):
            if self.cells[cell][0] > 40:
                self.take(cell, 1, self.chance.randrange(2, 40))
                changed.add(cell)
        return sorted(changed)

    def encode(self, cells=None):
        out = bytearray()
        for cell in range(self.CELLS) if cells is None else cells:
            out += bytes(min(255, math.ceil(255 * n / self.PER_CELL)) for n in self.cells[cell])
        return base64.b64encode(bytes(out)).decode()

    def whole(self):
        return {
            "cells": self.CELLS,
            "pages_per_cell": self.PER_CELL,
            "counts": self.encode(),
            "regions": [
                {"first_cell": 0, "cells": 2016, "name": "ram", "pages": 2016 * self.PER_CELL, "page_size": PAGE_SIZE},
                {"first_cell": 2016, "cells": 32, "name": "video", "pages": self.VIDEO_PAGES, "page_size": PAGE_SIZE},
            ],
        }

    def pages(self, waiting=0, oldest=0):
        sums = [sum(cell[kind] for cell in self.cells) for kind in range(6)]
        return {
            "total": self.CELLS * self.PER_CELL,
            "resident": sum(sums[2:]),
            "demand": sums[2],
            "prefetched": sums[3],
            "pushed": sums[4],
            "zero": sums[5],
            "asked": sums[1],
            "duplicate": 211,
            "waiting": waiting,
            "oldest_us": oldest,
        }


PATH = [
    ("none", 0),
    ("setup", 0),
    ("active", 4210),
    ("device", 1_216_400),
    ("postcopy-device", 1_218_010),
    ("postcopy-active", 1_219_880),
]
PATH_THERE = [
    ("none", 0),
    ("setup", 0),
    ("active", 3800),
    ("postcopy-device", 1_217_100),
    ("postcopy-active", 1_219_340),
]


def steps(path, until=None, more=()):
    out = []
    for state, at in path:
        out.append({"state": state, "at_us": at})
        if state == until:
            break
    return out + [{"state": state, "at_us": at} for state, at in more]


class Agent:
    """An agent in one situation; `agent-migrating` and `agent-source` move on."""

    SITUATIONS = {
        # name: role, runs here, own states, the states of the other side, error, share of memory that is here
        "agent-idle": ("none", True, [], [], None, 0),
        "agent-setup": ("source", True, steps(PATH, "setup"), [], None, 0),
        "agent-active": ("source", True, steps(PATH, "active"), steps(PATH_THERE, "active"), None, 0),
        "agent-pre-switchover": (
            "source",
            False,
            steps(PATH, "active", [("pre-switchover", 1_216_000)]),
            steps(PATH_THERE, "active"),
            None,
            0,
        ),
        "agent-device": (
            "source",
            False,
            steps(PATH, "postcopy-device"),
            steps(PATH_THERE, "postcopy-device"),
            None,
            0,
        ),
        "agent-migrating": ("destination", True, steps(PATH_THERE), steps(PATH), None, 0.3),
        "agent-source": ("source", False, steps(PATH), steps(PATH_THERE), None, 0.3),
        "agent-waiting": (
            "destination",
            False,
            steps(PATH_THERE, "postcopy-device"),
            steps(PATH, "postcopy-active"),
            None,
            0,
        ),
        "agent-paused": (
            "destination",
            True,
            steps(PATH_THERE, more=[("postcopy-paused", 9_400_000)]),
            steps(PATH, more=[("postcopy-paused", 9_430_000)]),
            "the link to 10.0.0.1:7000 broke: Connection reset by peer; give the source the command recover",
            0.46,
        ),
        "agent-recovering": (
            "source",
            False,
            steps(
                PATH,
                more=[
                    ("postcopy-paused", 9_430_000),
                    ("postcopy-recover-setup", 14_000_000),
                    ("postcopy-recover", 14_002_100),
                ],
            ),
            steps(PATH_THERE, more=[("postcopy-paused", 9_400_000), ("postcopy-recover", 14_001_000)]),
            None,
            0.46,
        ),
        "agent-recovered": (
            "source",
            False,
            steps(
                PATH,
                more=[
                    ("postcopy-paused", 9_430_000),
                    ("postcopy-recover-setup", 14_000_000),
                    ("postcopy-recover", 14_002_100),
                    ("postcopy-active", 14_005_000),
                ],
            ),
            steps(
                PATH_THERE,
                more=[
                    ("postcopy-paused", 9_400_000),
                    ("postcopy-recover", 14_001_000),
                    ("postcopy-active", 14_004_000),
                ],
            ),
            None,
            0.52,
        ),
        "agent-cancelling": (
            "source",
            False,
            steps(PATH, more=[("cancelling", 1_402_000)]),
            steps(PATH_THERE, "postcopy-device"),
            None,
            0,
        ),
        "agent-cancelled": (
            "source",
            True,
            steps(PATH, "active", [("cancelled", 803_000)]),
            steps(PATH_THERE, "active", [("cancelled", 803_500)]),
            None,
            0,
        ),
        "agent-failed": (
            "source",
            True,
            steps(PATH, "postcopy-device", [("failed", 1_221_300)]),
            steps(PATH_THERE, "postcopy-device", [("failed", 1_220_900)]),
            "the destination reports: the device 'nic' cannot load its state: 12 bytes are missing",
            0,
        ),
        "agent-completed": (
            "destination",
            True,
            steps(PATH_THERE, more=[("completed", 61_200_000)]),
            steps(PATH, more=[("completed", 61_203_000)]),
            None,
            1,
        ),
    }

    def __init__(self, name):
        self.chance = random.Random(7)
        role, runs_here, own, other, error, share = self.SITUATIONS[name]
        self.name, self.role, self.moves = name, role, name in ("agent-migrating", "agent-source", "agent-recovered")
        self.runs_here, self.own, self.other, self.error = runs_here, own, other, error
        self.memory, self.stalls = Memory(self.chance), Stalls(self.chance)
        self.has_switched = any(step["state"] == "postcopy-active" for step in own)
        self.is_paused = "paused" in name
        ticks = int(share * 170)
        for _ in range(ticks):
            self.memory.advance(12 if share < 1 else 13, 60)
            self.stalls.add(120)
        if share == 1:
            for cell in self.memory.cells:
                cell[4] += cell[0] + cell[1]
                cell[0] = cell[1] = 0
        self.began = now_ms() - int((own[-1]["at_us"] if own else 0) / 1000) - (30_000 if share else 0)
        self.sent = {"urgent 0": 31 << 20, "urgent 1": 28 << 20, "push 0": 1 << 30, "push 1": 1 << 30}
        self.rates = dict.fromkeys(self.sent, 0)
        self.waiting, self.oldest = (7, 12_400_000) if self.is_paused else (0, 0)
        self.events = []
        if own:
            for step in own:
                self.say("notice", f"The migration is {step['state']}.", self.began + step["at_us"] // 1000)
            if error:
                self.say("error", error[0].upper() + error[1:] + ".")
        else:
            self.say("notice", "The workload random runs here, with 8 GiB of memory.")

    def say(self, level, text, at=None):
        self.events = (self.events + [{"unix_ms": at or now_ms(), "level": level, "text": text}])[-200:]
        return self.events[-1]

    def migration(self):
        sides = []
        other = "destination" if self.role == "source" else "source"
        if self.role != "none":
            sides = [
                {"side": self.role, "own": True, "states": self.own},
                {"side": other, "own": False, "states": self.other},
            ]
            sides.sort(key=lambda side: side["side"] != "source")
        return {
            "role": self.role,
            "id": "5f0c" * 8 if self.role != "none" else None,
            "workload": "random",
            "runs_here": self.runs_here,
            "memory_bytes": 8 << 30,
            "page_size": PAGE_SIZE,
            "sides": sides,
            "possible": {"source": STATES, "destination": DESTINATION},
            "edges": {"source": SOURCE_EDGES, "destination": DESTINATION_EDGES},
            "error": self.error,
            "awaits_cont": self.name == "agent-waiting",
            "total_us": (now_ms() - self.began) * 1000,
            "downtime_us": 4820 if self.has_switched else None,
            "switchover": (
                dict(stop_us=410, save_us=1200, transfer_us=980, load_us=1310, grant_us=520, start_us=610)
                if self.has_switched
                else None
            ),
        }

    def lanes(self):
        if self.role == "none" or not self.has_switched and self.role == "source":
            return []
        return [{"name": name, "bytes": self.sent[name], "rate_bytes_per_s": self.rates[name]} for name in self.sent]

    def state(self):
        out = {"kind": "agent", "release": "0.1.0", "name": "node-b", "unix_ms": now_ms(), "control": True}
        out |= {"migration": self.migration(), "events": self.events, "lanes": self.lanes()}
        if self.role != "none":
            out |= {"pages": self.memory.pages(self.waiting, self.oldest), "map": self.memory.whole()}
            out["stall"] = (
                self.stalls.summary() if self.stalls.count else {"count": 0, "floor_us": 62.0, "histogram": []}
            )
        return out

    def tick(self):
        out = {"unix_ms": now_ms(), "migration": self.migration()}
        if self.name == "agent-failed":
            out["map"] = None  # The agent has freed the memory.
        if self.is_paused:
            self.oldest += int(TICK * 1e6)
            out["pages"] = self.memory.pages(self.waiting, self.oldest)
        if self.moves:
            changed = self.memory.advance(12, 60)
            self.stalls.add(120, 88 + 6 * math.sin(time.time() / 3))
            for lane in self.sent:
                usual = 3 << 20 if lane.startswith("urgent") else 52 << 20
                self.rates[lane] = int(usual * self.chance.uniform(0.7, 1.1))
                self.sent[lane] += int(self.rates[lane] * TICK)
            waiting = self.chance.randrange(0, 4)
            out["pages"] = self.memory.pages(waiting, waiting * 91)
            out["map"] = {"from": changed, "counts": self.memory.encode(changed)}
            out |= {"stall": self.stalls.summary(), "lanes": self.lanes()}
            if self.chance.random() < 0.15:
                out["events"] = [self.say("info", f"Pushed {self.memory.push_at} of 2048 cells.")]
            if self.memory.push_at >= Memory.CELLS and self.own[-1]["state"] == "postcopy-active":
                for cell in self.memory.cells:
                    cell[4] += cell[0] + cell[1]
                    cell[0] = cell[1] = 0
                at = (now_ms() - self.began) * 1000
                self.own, self.other = self.own + [{"state": "completed", "at_us": at}], self.other + [
                    {"state": "completed", "at_us": at}
                ]
                self.moves = False
                out |= {"map": self.memory.whole(), "pages": self.memory.pages(), "migration": self.migration()}
                out["events"] = [self.say("notice", "The migration is completed.")]
        return out

    def act(self, path, body):
        """Performs an action; returns an error, or None and the members that changed."""
        at = (now_ms() - self.began) * 1000
        now = self.own[-1]["state"] if self.own else "none"
        if path == "cancel":
            if self.has_switched and self.role == "destination":
                return "the workload has already started here", None
            self.own = self.own + [{"state": "cancelled", "at_us": at}]
            self.moves = False
        elif path == "pause" and now == "postcopy-active":
            self.own, self.is_paused, self.moves = self.own + [{"state": "postcopy-paused", "at_us": at}], True, False
        elif path == "recover" and now == "postcopy-paused":
            if not str(body.get("uri", "")).startswith(("tcp:", "unix:")):
                return f"'{body.get('uri')}' is no address: give tcp:HOST:PORT", None
            self.own = self.own + [
                {"state": "postcopy-recover", "at_us": at},
                {"state": "postcopy-active", "at_us": at + 3000},
            ]
            self.is_paused, self.error, self.moves, self.waiting, self.oldest = False, None, True, 0, 0
        elif path == "cont" and self.name == "agent-waiting":
            self.name, self.runs_here, self.has_switched, self.moves = "agent-migrating", True, True, True
            self.own = self.own + [{"state": "postcopy-active", "at_us": at}]
        else:
            return f"{path} is not possible in the state {now}", None
        event = self.say("notice", f"An operator gave the command {path}.")
        return None, {"unix_ms": now_ms(), "migration": self.migration(), "events": [event]}


class Handler:
    """A handler with guests that fetch pages; a few are in trouble."""

    def __init__(self, number):
        self.chance, self.events = random.Random(11), []
        self.guests = {}
        for i in range(number):
            pid = 20_000 + i * 7
            total = self.chance.choice([32_768, 65_536, 131_072])
            resident = int(total * self.chance.betavariate(2, 2))
            state = "linked"
            if i % 97 == 13:
                state = "held"
            elif i % 61 == 5:
                state = "unlinked"
            elif i % 40 == 7:
                state, resident = "complete", total
            demand = resident // 9
            self.guests[pid] = {
                "id": str(pid),
                "pid": pid,
                "name": f"vm-{i:04}",
                "socket": "/run/pageferry-uffd.sock",
                "state": state,
                "server": f"10.0.{i % 4}.1:7200",
                "total": total,
                "resident": resident,
                "demand": demand,
                "ahead": resident - demand,
                "waiting": 3 if state == "held" else 0,
                "oldest_us": 41_000_000 + i * 1000 if state == "held" else 0,
                "p50_us": round(self.chance.uniform(80, 120), 1),
                "p99_us": round(self.chance.uniform(300, 2500), 1),
                "policy": "kill" if i % 3 == 0 else "hold",
                "fill": None if i % 4 else (50 << 20 if i % 8 else 0),
                "restarts": 1 if i % 50 == 9 else 0,
                "attached_unix_ms": now_ms() - self.chance.randrange(10_000, 9_000_000),
            }
        self.say("notice", f"{number} guests are attached.")
        if number:
            self.say("error", "The server 10.0.1.1:7200 does not answer: 11 guests are held.")

    def say(self, level, text):
        self.events = (self.events + [{"unix_ms": now_ms(), "level": level, "text": text}])[-200:]
        return self.events[-1]

    def state(self):
        return {
            "kind": "handler",
            "release": "0.1.0",
            "name": "node-7",
            "unix_ms": now_ms(),
            "control": True,
            "guests": list(self.guests.values()),
            "events": self.events,
        }

    def tick(self):
        for guest in self.guests.values():
            if guest["state"] == "held":
                guest["oldest_us"] += int(TICK * 1e6)
            elif guest["state"] == "linked":
                more = min(guest["total"] - guest["resident"], self.chance.randrange(0, 200))
                guest["resident"] += more
                guest["demand"] += more // 9
                guest["ahead"] += more - more // 9
                guest["waiting"] = self.chance.choice([0, 0, 0, 1, 2])
                guest["oldest_us"] = guest["waiting"] * self.chance.randrange(20, 160)
                guest["p99_us"] = round(guest["p99_us"] * self.chance.uniform(0.98, 1.02), 1)
        return {"unix_ms": now_ms(), "guests": list(self.guests.values())}

    def act(self, path, body):
        match = re.fullmatch(r"guests/(\d+)/(fill|release)", path)
        guest = self.guests.get(int(match[1])) if match else None
        if not guest:
            return "no such guest", None
        rate = body.get("rate_bytes_per_s") if match[2] == "fill" else None
        if rate is not None and rate <= 0:
            return "a rate is a positive number of bytes per second", None
        guest["fill"] = rate or 0
        event = self.say("notice", f"An operator filled {guest['name']}.")
        return None, {"unix_ms": now_ms(), "guests": [guest], "events": [event]}


class Server:
    """A server of a snapshot."""

    def __init__(self, is_full=False):
        self.chance, self.sent, self.is_full = random.Random(3), 91 << 30, is_full
        self.events = [{"unix_ms": now_ms(), "level": "notice", "text": "Serving /srv/vm.mem at 10.0.0.1:7200."}]

    def figures(self):
        rate = int(220e6 * self.chance.uniform(0.6, 1.2))
        self.sent += int(rate * TICK)
        return {
            "snapshot_bytes": 2 << 30,
            "path": "/srv/vm.mem",
            "connections": 512 if self.is_full else 148,
            "connections_limit": 512,
            "sessions": 170 if self.is_full else 49,
            "sent_bytes": self.sent,
            "rate_bytes_per_s": rate,
        }

    def state(self):
        return {
            "kind": "server",
            "release": "0.1.0",
            "name": "node-a",
            "unix_ms": now_ms(),
            "control": False,
            "server": self.figures(),
            "events": self.events,
        }

    def tick(self):
        return {"unix_ms": now_ms(), "server": self.figures()}

    def act(self, path, body):
        return "a server takes no commands", None


def report(kind):
    """A report: `full`, `plain` without the optional members, or `failed`."""
    chance = random.Random(5)
    memory, stalls, service = Memory(chance), Stalls(chance), Stalls(chance)
    for _ in range(170):
        memory.advance(13, 60)
        stalls.add(60)
        service.add(60, 79)
    for cell in range(Memory.CELLS):
        counts = memory.cells[cell]
        counts[4] += counts[0] + counts[1]
        counts[0] = counts[1] = 0

    def distribution(of):
        summary = of.summary()
        names = {"p50": "p50_us", "p90": "p90_us", "p99": "p99_us", "p999": "p999_us", "max": "max_us"}
        out = {name: summary[key] for name, key in names.items()}
        return out | {
            "count": of.count,
            "mean": round(out["p50"] * 1.1, 1),
            "total": round(of.count * out["p50"] * 1.1, 1),
        }

    pages = memory.pages()
    out = {
        "schema": "pageferry.report/1",
        "result": "completed",
        "error": None,
        "page_size": PAGE_SIZE,
        "memory_bytes": 8 << 30,
        "runs_on": "destination",
        "source": {"states": [state for state, _ in PATH] + ["completed"]},
        "destination": {"states": [state for state, _ in PATH_THERE] + ["completed"]},
        "workload": {
            "name": "random",
            "ops_source": 18_220_110,
            "ops_destination": 771_204_551,
            "ops_after_take_back": 0,
        },
        "downtime_us": 4820.5,
        "switchover_us": {
            "stop": 410.2,
            "save": 1200.9,
            "transfer": 980.1,
            "load": 1310.4,
            "grant": 520.7,
            "start": 610.3,
        },
        "total_us": 86_412_000,
        "throughput_mib_s": 96.3,
        "push_lanes": 2,
        "pages": {key: pages[key] for key in ("total", "demand", "prefetched", "pushed", "zero", "duplicate")}
        | {"prefetched_unused": 4210},
        "compression": {
            "setting": "auto",
            "codec": "lz4",
            "bytes_before": 5 << 30,
            "bytes_after": 2 << 30,
            "cpu_us": 9_120_000,
            "runs": 81_120,
            "runs_unshrunk": 204,
            "runs_skipped": 1200,
        },
        "stall_us": distribution(stalls),
        "service_us": distribution(service),
        "stall_origin": "accesses",
        "threads": None,
        "waiting": {"faults": 0, "oldest_us": 0},
        "floor_us": {"round_trip_p50": 48.2, "local_fault_p50": 13.9},
        "verify": {"pages_checked": pages["total"], "corrupt": 0, "lines_found": None, "lines_total": None},
    }
    if kind == "failed":
        zero = dict.fromkeys(out["stall_us"], 0)
        return out | {
            "result": "failed",
            "error": "the destination reports: the device 'nic' cannot load its state: 12 bytes are missing",
            "runs_on": "source",
            "downtime_us": 0,
            "switchover_us": dict.fromkeys(out["switchover_us"], 0),
            "throughput_mib_s": 0,
            "source": {"states": ["none", "setup", "active", "device", "postcopy-device", "failed"]},
            "total_us": 1_221_300,
            "destination": {"states": ["none", "setup", "active", "postcopy-device", "failed"]},
            "compression": None,
            "pages": dict.fromkeys(out["pages"], 0) | {"total": pages["total"]},
            "stall_us": zero,
            "service_us": zero,
            "stall_origin": None,
            "verify": {"pages_checked": 0, "corrupt": 0},
            "push_lanes": None,
        }
    if kind == "plain":
        return out
    return out | {
        "timeline": {
            "error_us": 21.5,
            "source": steps(PATH, more=[("completed", 86_412_000)]),
            "destination": steps(PATH_THERE, more=[("completed", 86_410_800)]),
        },
        "histogram": {"per_octave": 8, "stall": stalls.histogram(8), "service": service.histogram(8)},
        "workload": out["workload"] | {"name": "random </script><b>"},
        "arrivals": {
            "pages_per_cell": Memory.PER_CELL,
            "regions": [
                {"first_cell": first, "cells": n, "name": name, "pages": n * Memory.PER_CELL, "page_size": PAGE_SIZE}
                for first, n, name in ((0, Memory.CELLS - 16, "ram"), (Memory.CELLS - 16, 16, "rom"))
            ],
            "at_ms": [cell * 40 + cell % 7 * 900 if cell % 97 else None for cell in range(Memory.CELLS)],
        },
    }


def report_page(kind):
    data = json.dumps(report(kind)).replace("<", "\\u003c")
    parts = {"report.json": data}

    def part(match):
        return parts.get(match[1]) or (PAGE / match[1]).read_text()

    return re.sub(r"\{\{((?:shared|report|bench)\.(?:css|js|json))\}\}", part, (PAGE / "report.html").read_text())


SCENARIOS = {name: (lambda name=name: Agent(name)) for name in Agent.SITUATIONS}
SCENARIOS |= {"handler": lambda: Handler(1000), "handler-empty": lambda: Handler(0)}
SCENARIOS |= {"server": Server, "server-full": lambda: Server(True)}
REPORTS = {"report": "full", "report-plain": "plain", "report-failed": "failed"}


class Stage:
    """A scenario that plays while somebody follows its events."""

    def __init__(self, name):
        self.make, self.lock, self.followers, self.down_until = SCENARIOS[name], threading.Lock(), set(), 0
        self.play = self.make()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            time.sleep(TICK)
            with self.lock:
                if self.followers:
                    self.send(self.play.tick())

    def send(self, tick):
        for follower in self.followers:
            follower.put(tick)

    def is_down(self):
        return time.monotonic() < self.down_until

    def drop(self, seconds):
        with self.lock:
            self.down_until = time.monotonic() + seconds
            self.send(None)


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stages, stages_lock = {}, threading.Lock()

    def log_message(self, *_):
        pass

    def stage(self, name):
        with self.stages_lock:
            if name not in self.stages:
                self.stages[name] = Stage(name)
            return self.stages[name]

    def answer(self, status, body=b"", kind="application/json", policy=POLICY):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        name, _, rest = path.lstrip("/").partition("/")
        if not name:
            links = "".join(f"<li><a href='{each}/'>{each}</a></li>" for each in [*SCENARIOS, *REPORTS])
            return self.answer(
                200, f"<!doctype html><title>mock</title><ul>{links}</ul>".encode(), KINDS[".html"], None
            )
        if name in REPORTS:
            return self.answer(200, report_page(REPORTS[name]).encode(), KINDS[".html"], None)
        if name not in SCENARIOS:
            return self.answer(404)
        stage = self.stage(name)
        if rest.startswith("api/") and stage.is_down():
            return self.answer(503, b'{"error": "down"}')
        if rest == "api/state":
            with stage.lock:
                return self.answer(200, json.dumps(stage.play.state()).encode())
        if rest == "api/events":
            return self.follow(stage)
        file = PAGE / (rest or "page.html")
        if file.name in ("page.html", "page.css", "page.js", "shared.css", "shared.js", "map.js", "icon.svg"):
            return self.answer(200, file.read_bytes(), KINDS[file.suffix])
        self.answer(404)

    def follow(self, stage):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        mine = queue.Queue()
        with stage.lock:
            first = stage.play.state()
            stage.followers.add(mine)
        try:
            number, name, data = 1, "state", first
            while data is not None:
                self.wfile.write(f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode())
                self.wfile.flush()
                number, name, data = number + 1, "tick", mine.get()
        except OSError:
            pass  # The client is gone.
        finally:
            with stage.lock:
                stage.followers.discard(mine)

    def do_POST(self):
        parts = urllib.parse.urlsplit(self.path)
        name, _, rest = parts.path.lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if name not in SCENARIOS:
            return self.answer(404)
        stage = self.stage(name)
        if rest == "mock/drop":
            stage.drop(float(urllib.parse.parse_qs(parts.query)["seconds"][0]))
            return self.answer(204)
        if rest == "mock/restart":
            with stage.lock:
                stage.play = stage.make()
            return self.answer(204)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b'{"error": "the token is wrong"}')
        with stage.lock:
            error, tick = stage.play.act(rest.removeprefix("api/"), json.loads(body or b"{}"))
            if error:
                return self.answer(409, json.dumps({"error": error}).encode())
            stage.send(tick)
        self.answer(204)


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64


def serve(port=0):
    """Starts the server on a thread; returns it. Its address is `server_address`."""
    server = Listener(("127.0.0.1", port), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=0)
    listener = serve(options.parse_args().port)
    print(f"http://127.0.0.1:{listener.server_address[1]}/", flush=True)
    threading.Event().wait()
