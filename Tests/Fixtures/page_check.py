#!/usr/bin/env python3
"""Checks the live page and the report in Chromium: access, contrast, keyboard, layout, origin of requests, and speed.

    page_check.py                  checks every scenario of web_mock.py
    page_check.py URL              checks one page that something else serves
    page_check.py --live --source URL --destination URL --handler URL --server URL --token TOKEN
                                   checks the pages of real processes: prints `watching`, follows a migration from its
                                   begin to its end, pauses and recovers it, and then looks at all four pages
    page_check.py --shots DIR      also writes a picture of each page at both widths and in both themes

Needs Debian's package `chromium` and Python, nothing else. Prints a line for each check; the exit status is 1 if one
fails. Chromium is driven over a pipe; its processes and its profile are gone at the end.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import web_mock

NARROW, WIDE, HEIGHT = 390, 1440, 900


class Browser:
    """Chromium without a window, and the client of its DevTools protocol."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="page-check-")
        read_there, self.write_here = os.pipe()
        self.read_here, write_there = os.pipe()
        flags = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--mute-audio",
            f"--user-data-dir={self.profile}",
            "about:blank",
        ]
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        script = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, program, *flags],
            pass_fds=(read_there, write_there),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.number, self.answers, self.events = 0, {}, []
        self.news = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        rest = b""
        while chunk := os.read(self.read_here, 1 << 16):
            *whole, rest = (rest + chunk).split(b"\0")
            with self.news:
                for message in map(json.loads, whole):
                    if "id" in message:
                        self.answers[message["id"]] = message
                    else:
                        self.events.append(message)
                self.news.notify_all()
        with self.news:
            self.answers = None
            self.news.notify_all()

    def call(self, method, session=None, timeout=30, **parameters):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self.write_here, json.dumps(message).encode() + b"\0")
        with self.news:
            if not self.news.wait_for(lambda: self.answers is None or number in self.answers, timeout):
                raise TimeoutError(f"Chromium does not answer {method}")
            if self.answers is None:
                raise ConnectionError("Chromium has exited")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def close(self):
        try:
            self.call("Browser.close", timeout=5)
            self.process.wait(5)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            pass  # What is left is killed below.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # The group has only what this check started.
        except ProcessLookupError:
            pass  # Every process of the group has exited.
        self.process.wait()
        for _ in range(20):
            shutil.rmtree(self.profile, ignore_errors=True)
            if not os.path.exists(self.profile):
                break
            time.sleep(0.1)


class Tab:
    """One page of the browser."""

    def __init__(self, browser, width=WIDE, dark=False, reduced=False):
        self.browser = browser
        # A tab behind another one draws nothing, so each has a window of its own.
        self.target = browser.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM", "Performance"):
            self.call(f"{domain}.enable")
        self.resize(width)
        self.media(dark, reduced)

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def resize(self, width, height=HEIGHT):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )

    def media(self, dark, reduced=False):
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")
        self.wait("document.querySelector('#verdict-text')?.textContent.length > 0")

    def run(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, expression, timeout=15):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.run(expression):
                return True
            time.sleep(0.05)
        raise TimeoutError(f"the page never fulfils: {expression}")

    def press(self, key, text=None, shift=False):
        codes = {
            "Tab": 9,
            "Enter": 13,
            "Escape": 27,
            "ArrowDown": 40,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "End": 35,
            "Home": 36,
        }
        about = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 8 if shift else 0}
        if key == "Enter":
            text = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def events(self, *methods):
        return [
            e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e["method"] in methods
        ]

    def shoot(self, path, whole=True):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
        part = {"captureBeyondViewport": True, "clip": clip} if whole else {}
        data = self.call("Page.captureScreenshot", format="png", **part)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)


# What runs in the page.
LIBRARY = (pathlib.Path(__file__).resolve().parent / "page_check.js").read_text()

NAMED_ROLES = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "checkbox",
    "combobox",
    "slider",
    "img",
    "image",
    "region",
    "form",
    "search",
    "table",
    "dialog",
    "menuitem",
    "tab",
    "switch",
    "spinbutton",
    "listbox",
    "alertdialog",
    "DisclosureTriangle",
}


class Check:
    """Counts and prints what is checked."""

    def __init__(self):
        self.failed, self.passed = 0, 0

    def __call__(self, what, problems, note=""):
        if problems:
            self.failed += 1
            print(
                f"FAIL  {what}" + (f" ({note})" if note else ""),
                *[f"      {problem}" for problem in problems[:8]],
                sep="\n",
            )
        else:
            self.passed += 1
            print(f"ok    {what}" + (f" ({note})" if note else ""))
        sys.stdout.flush()

    def found(self, what, answer):
        self(what, answer["problems"], answer["note"])


def names(tab):
    problems, number = [], 0
    for node in tab.call("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if node["ignored"] or role not in NAMED_ROLES:
            continue
        number += 1
        if not str(node.get("name", {}).get("value", "")).strip():
            # A table in a named section or region is named by that.
            if role != "table":
                problems.append(f"{role} has no name")
    return {"problems": problems, "note": f"{number} elements"}


def keyboard(tab, most=60):
    """Walks through the page by Tab."""
    tab.run("window.lastFocus = null; document.activeElement?.blur(); scrollTo(0, 0)")
    problems, stops = [], []
    for _ in range(most):
        tab.press("Tab")
        at = tab.run("check.focused()")
        if at is None:
            break
        stops.append(at["name"])
        if not at["outline"]:
            problems.append(f"no visible focus: {at['name']}")
        if not at["inView"]:
            problems.append(f"focused out of sight: {at['name']}")
        if not at["inOrder"]:
            if len(stops) > 1 and "skip" in at["name"]:
                break
            problems.append(f"out of order: {at['name']}")
    if not stops or "skip" not in stops[0]:
        problems.append("the first stop is not the skip link")
    tab.run("document.querySelector('.skip').focus()")
    tab.press("Enter")
    tab.wait("document.activeElement.id === 'main'", 3)
    return {"problems": problems, "note": f"{len(stops)} stops"}


def quiet(tab, origin):
    """No error in the console, and no request to another origin."""
    problems = []
    for event in tab.events("Runtime.exceptionThrown"):
        details = event["exceptionDetails"]
        problems.append(details.get("exception", {}).get("description", details["text"]))
    for event in tab.events("Runtime.consoleAPICalled"):
        if event["type"] in ("error", "warning", "assert"):
            problems.append(f"console: {event['args'][0].get('value')}")
    for event in tab.events("Log.entryAdded"):
        if event["entry"]["level"] in ("error", "warning"):
            problems.append(f"log: {event['entry']['text']}")
    urls = [event["request"]["url"] for event in tab.events("Network.requestWillBeSent")]
    problems += [f"request to {url}" for url in urls if not url.startswith((origin, "data:"))]
    return {"problems": problems, "note": f"{len(urls)} requests"}


def audit(check, browser, url, name, shots):
    origin = re.match(r"(\w+://[^/]*)", url)[1] if not url.startswith("file:") else "file:"
    tab = Tab(browser)
    try:
        tab.open(url)
        time.sleep(1.6 if "report" not in name else 0.4)
        tab.run(LIBRARY)
        check.found(f"{name}: structure, headings, tables, landmarks", tab.run("check.structure()"))
        check.found(f"{name}: every control has a name", names(tab))
        check.found(f"{name}: keyboard, focus visible and in order", keyboard(tab))
        for dark in (False, True):
            theme = "dark" if dark else "light"
            for width in (WIDE, NARROW):
                tab.media(dark)
                tab.resize(width)
                tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 250)))")
                tab.run("document.activeElement?.blur()")
                check.found(f"{name}: contrast of text, {theme}, {width} px", tab.run("check.texts()"))
                if not dark:
                    check.found(f"{name}: no horizontal scrolling, {width} px", tab.run("check.width()"))
                if shots:
                    tab.shoot(f"{shots}/{name}-{width}-{theme}.png")
        tab.resize(320)
        tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 250)))")
        check.found(f"{name}: no horizontal scrolling, 320 px", tab.run("check.width()"))
        check.found(f"{name}: no console error, no other origin", quiet(tab, origin))
    finally:
        tab.close()


def colours(check, browser, url):
    tab = Tab(browser)
    try:
        tab.open(url)
        tab.run(LIBRARY)
        for dark in (False, True):
            tab.media(dark)
            check.found(
                f"contrast and sight of graphic parts, {'dark' if dark else 'light'}", tab.run("check.graphics()")
            )
        tab.media(False, reduced=True)
        tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
        running = tab.run("document.getAnimations().filter((a) => a.playState === 'running').length")
        check("reduced motion stops every animation", [f"{running} run"] if running else [])
    finally:
        tab.close()


def first_paint(check, browser, url):
    tab = Tab(browser)
    try:
        tab.open(url)
        tab.wait("document.querySelector('#map canvas')?.width > 0")
        paint = tab.run("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        drawn = tab.run("performance.getEntriesByName('drawn')[0]?.startTime")
        size = tab.run(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".reduce((sum, entry) => sum + entry.decodedBodySize, 0)"
        )
        check(
            "first paint within 1 s, with the map of 8 GiB",
            [] if drawn and drawn <= 1000 else [f"drawn at {drawn} ms"],
            f"first paint {paint:.0f} ms, map drawn {drawn:.0f} ms",
        )
        check(
            "the live page has at most 120 KiB",
            [] if size <= 120 * 1024 else [f"{size} bytes"],
            f"{size / 1024:.1f} KiB",
        )
    finally:
        tab.close()


def long_tasks(check, browser, url, what, width=WIDE, seconds=12):
    tab = Tab(browser, width)
    try:
        tab.open(url)
        time.sleep(2)
        started = len(browser.events)
        browser.call(
            "Tracing.start", traceConfig={"includedCategories": ["toplevel", "disabled-by-default-devtools.timeline"]}
        )
        time.sleep(seconds)
        browser.call("Tracing.end")
        end = time.monotonic() + 20
        while not any(event["method"] == "Tracing.tracingComplete" for event in browser.events[started:]):
            if time.monotonic() > end:
                raise TimeoutError("the trace never ends")
            time.sleep(0.1)
        trace = [
            e
            for event in browser.events[started:]
            if event["method"] == "Tracing.dataCollected"
            for e in event["params"]["value"]
        ]
        del browser.events[started:]
        mains = {
            (e["pid"], e["tid"]) for e in trace if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
        }
        tasks = [e for e in trace if (e["pid"], e["tid"]) in mains and e["ph"] == "X" and e["name"] == "RunTask"]
        # The thread's processor time does not count what other processes took meanwhile.
        spent = [e.get("tdur", e["dur"]) / 1000 for e in tasks]
        problems = [f"a task of {ms:.0f} ms" for ms in spent if ms >= 50] or ([] if tasks else ["no task was traced"])
        each = sum(spent) / (seconds * 2)
        note = f"longest {max(spent, default=0):.1f} ms, {each:.1f} ms for each tick, of processor time"
        check(
            f"{what}: no task of 50 ms or more",
            problems,
            note + f"; longest by the clock {max((e['dur'] / 1000 for e in tasks), default=0):.0f} ms",
        )
    finally:
        tab.close()


def post(url):
    urllib.request.urlopen(urllib.request.Request(url, method="POST", data=b""), timeout=5).close()


def connection(check, browser, base, shots):
    tab = Tab(browser)
    try:
        tab.open(f"{base}/agent-source/")
        tab.wait("document.querySelector('#connection').dataset.state === 'live'")
        post(f"{base}/agent-source/mock/drop?seconds=3")
        tab.wait("!document.querySelector('#lost').hidden", 3)
        words = tab.run("document.querySelector('#announcer').textContent")
        if shots:
            for dark, width in ((False, WIDE), (True, NARROW)):
                tab.media(dark)
                tab.resize(width)
                tab.shoot(f"{shots}/lost-{width}-{'dark' if dark else 'light'}.png")
        check("a lost connection is shown and announced", [] if "lost" in words else [words], words)
        tab.wait(
            "document.querySelector('#lost').hidden && document.querySelector('#connection').dataset.state === 'live'",
            15,
        )
        words = tab.run("document.querySelector('#announcer').textContent")
        check("the return of the connection is shown and announced", [] if "back" in words else [words], words)
        tab.run(
            "window.said = 0; new MutationObserver(() => said += 1)"
            ".observe(document.querySelector('#announcer'), { childList: true, characterData: true, subtree: true })"
        )
        time.sleep(5)
        said = tab.run("said")
        check(
            "live regions do not chatter",
            [f"{said} announcements in 5 s"] if said > 1 else [],
            f"{said} announcements in 10 ticks",
        )
    finally:
        tab.close()


def type_into(tab, selector, words):
    tab.run(f"document.querySelector({selector!r}).focus()")
    tab.call("Input.insertText", text=words)


def actions(check, browser, base, shots):
    tab = Tab(browser)
    try:
        post(f"{base}/agent-paused/mock/restart")
        tab.open(f"{base}/agent-paused/")
        tab.run(LIBRARY)
        tab.wait("!document.querySelector('#actions').hidden")
        tab.run(
            "[...document.querySelectorAll('#action-buttons button')]"
            ".find((button) => button.textContent.startsWith('Recover')).focus()"
        )
        tab.press("Enter")
        tab.wait("document.querySelector('#action-dialog').open")
        tab.run("window.lastFocus = null")
        check.found("the dialog of an action: contrast", tab.run("check.texts()"))
        check.found("the dialog of an action: names", names(tab))
        if shots:
            for dark, width in ((False, WIDE), (True, NARROW)):
                tab.media(dark)
                tab.resize(width)
                tab.shoot(f"{shots}/action-dialog-{width}-{'dark' if dark else 'light'}.png", whole=False)
        type_into(tab, "#action-input", "tcp:10.0.0.2:7000")
        type_into(tab, "#action-token", "wrong")
        tab.press("Enter")
        tab.wait("document.querySelector('#action-answer').textContent.startsWith('Refused')")
        answer = tab.run("document.querySelector('#action-answer').textContent")
        check("an action with a wrong token shows the refusal", [] if "token" in answer else [answer], answer)
        tab.run("document.querySelector('#action-token').value = ''")
        type_into(tab, "#action-token", "secret")
        tab.press("Enter")
        tab.wait("document.querySelector('#action-answer').textContent === 'Done.'")
        check("an action with the token is done", [])
        kept = tab.run("sessionStorage.length + localStorage.length + document.cookie.length")
        check("the token is not stored unless that is chosen", [f"{kept} entries"] if kept else [])
        tab.press("Escape")
        tab.wait("!document.querySelector('#action-dialog').open && document.activeElement !== document.body")
        at = tab.run("document.activeElement.textContent")
        check("the focus returns to the button", [] if at.startswith(("Recover", "Pause", "Cancel")) else [at], at[:24])
        tab.wait("document.querySelector('#machines h3').textContent.includes('postcopy')")
        post(f"{base}/agent-paused/mock/restart")
        tab.open(f"{base}/server/")
        check(
            "no action without control",
            [] if tab.run("document.querySelectorAll('#actions button').length") == 0 else ["buttons"],
        )
    finally:
        tab.close()


def guests(check, browser, base, shots):
    tab = Tab(browser)
    try:
        tab.open(f"{base}/handler/")
        tab.wait("document.querySelectorAll('#guests tr.row').length > 5")
        tab.run(LIBRARY)
        rows = tab.run("document.querySelectorAll('#guests tr.row').length")
        check("only the rows in sight exist", [] if rows < 60 else [f"{rows} rows"], f"{rows} rows for 1000 guests")
        tab.run("document.querySelector('#guests th button').focus()")
        tab.press("Enter")
        sort = tab.run("document.querySelector('#guests th').getAttribute('aria-sort')")
        check("the keyboard sorts the table", [] if sort == "ascending" else [sort], sort)
        first = tab.run("document.querySelector('#guests tr.row .open').textContent")
        check("sorted by name, the first is first", [] if first.startswith("vm-0000") else [first])
        tab.run("document.querySelector('#guests tr.row .open[tabindex=\"0\"]').focus()")
        problems = []
        for key, name in [("ArrowDown", "vm-0001"), ("End", "vm-0999"), ("Home", "vm-0000"), ("ArrowDown", "vm-0001")]:
            tab.press(key)
            time.sleep(0.15)
            at = tab.run("document.activeElement.textContent")
            seen = tab.run("check.focused().inView")
            if not at.startswith(name) or not seen:
                problems.append(f"{key} leads to “{at}”, in view: {seen}")
        check("the arrow keys move between guests", problems)
        tab.press("Enter")
        tab.wait("document.querySelector('#guest-dialog').open")
        check.found("the dialog of a guest: contrast", tab.run("check.texts()"))
        check.found("the dialog of a guest: names", names(tab))
        if shots:
            tab.shoot(f"{shots}/guest-dialog-{WIDE}-light.png", whole=False)
            tab.resize(NARROW)
            tab.media(True)
            tab.shoot(f"{shots}/guest-dialog-{NARROW}-dark.png", whole=False)
            tab.resize(WIDE)
            tab.media(False)
        tab.press("Escape")
        tab.wait("!document.querySelector('#guest-dialog').open")
        type_into(tab, "#filter", "vm-001")
        tab.wait("document.querySelector('#guests').getAttribute('aria-rowcount') === '11'")
        check("the filter leaves ten guests", [])
    finally:
        tab.close()


VIEWS = [(width, dark) for width in (WIDE, NARROW) for dark in (False, True)]


class Agent:
    """The page of an agent while its migration runs."""

    # States that last for seconds, since one device is slow to save, another one is slow to load, and the page pauses.
    LASTING = {
        "source": ["none", "device", "postcopy-device", "postcopy-active", "postcopy-paused", "completed"],
        "destination": ["active", "postcopy-device", "postcopy-active", "postcopy-paused", "completed"],
    }

    def __init__(self, browser, side, url):
        self.side, self.url, self.tab = side, url, Tab(browser)
        self.tab.open(url)
        self.tab.run(LIBRARY)
        self.tried, self.seen = set(), []

    def state(self):
        titles = self.tab.run("[...document.querySelectorAll('.machine h3')].map((h) => h.textContent)")
        return next((t.split(": ")[1] for t in titles if t.lower().startswith(self.side)), None)

    def look(self, check, shots):
        """Checks a state that the page has not shown before, in each view."""
        state = self.state()
        if state is None or state in self.tried:
            return
        self.tried.add(state)
        found, pictures = [], []
        for width, dark in VIEWS:
            self.tab.media(dark)
            self.tab.resize(width)
            self.tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 150)))")
            theme = "dark" if dark else "light"
            found.append((f"contrast of text, {theme}, {width} px", self.tab.run("check.texts()")))
            found.append((f"no horizontal scrolling, {theme}, {width} px", self.tab.run("check.width()")))
            if shots:
                pictures.append(pathlib.Path(f"{shots}/{self.side}-{state}-{width}-{theme}.png"))
                self.tab.shoot(pictures[-1])
            if self.state() != state:
                # The state has passed before it was seen in every view.
                for picture in pictures:
                    picture.unlink()
                return
        found.append(("every control has a name", names(self.tab)))
        for what, answer in found:
            check.found(f"{self.side} in {state}: {what}", answer)
        self.seen.append(state)

    def act(self, check, word, token, address=None):
        """Gives an order by the page."""
        self.tab.resize(WIDE)
        self.tab.run(
            "[...document.querySelectorAll('#action-buttons button')]"
            f".find((button) => button.textContent.startsWith('{word}')).focus()"
        )
        self.tab.press("Enter")
        self.tab.wait("document.querySelector('#action-dialog').open")
        if address:
            type_into(self.tab, "#action-input", address)
        type_into(self.tab, "#action-token", token)
        self.tab.press("Enter")
        self.tab.wait("!document.querySelector('#action-confirm').disabled", 30)
        answer = self.tab.run("document.querySelector('#action-answer').textContent")
        check(f"{self.side}: {word} is done by the page", [] if answer == "Done." else [answer])
        self.tab.press("Escape")
        self.tab.wait("!document.querySelector('#action-dialog').open")

    def end(self, check):
        """Compares what the page has shown with what the agent says."""
        missed = [state for state in self.LASTING[self.side] if state not in self.seen]
        check(f"{self.side}: states that last are seen in every view", missed, ", ".join(self.seen))
        with urllib.request.urlopen(f"{self.url}api/state", timeout=5) as answer:
            sides = json.load(answer)["migration"]["sides"]
        for side in sides:
            said = [each["state"] for each in side["states"]]
            shown = self.tab.run(
                f"[...document.querySelectorAll('.machine')].find((m) => m.querySelector('h3').textContent"
                f".toLowerCase().startsWith('{side['side']}')).querySelector('.path').textContent"
            )
            at, problems = 0, []
            for state in said:
                at = shown.find(state, at)
                if at < 0:
                    problems.append(f"{state} is not in “{shown}”")
                    break
            check(f"{self.side}: every state of the {side['side']} is on the page", problems, ", ".join(said))
            note = self.tab.run(
                f"[...document.querySelectorAll('.machine')].find((m) => m.querySelector('h3').textContent"
                f".toLowerCase().startsWith('{side['side']}')).querySelector('.note').textContent"
            )
            problems = [] if side["own"] != ("as far as this agent knows" in note) else [note]
            check(f"{self.side}: says whether the {side['side']} is this agent", problems, note)
        zeros = self.tab.run(
            "[...document.querySelectorAll('.waterfall td.number')].filter((cell) => cell.textContent === '0 s').length"
        )
        problems = [f"{zeros} are 0 s"] if zeros else []
        check(f"{self.side}: shows no part of the switchover that it does not know", problems)
        check.found(f"{self.side}: no console error, no other origin", quiet(self.tab, self.url))
        self.tab.close()


def node(check, browser, url, token, shots):
    """A handler whose guests go by names, and the orders that its page gives."""
    tab = Tab(browser)
    try:
        tab.open(url)
        tab.run(LIBRARY)
        tab.wait("document.querySelectorAll('#guests tr.row').length === 5")
        shown = tab.run(
            "[...document.querySelectorAll('#guests .open')].map((b) => b.textContent.split(' ')[0]).sort().join()"
        )
        check("five guests go by the names of their sockets", [] if shown == "vm1,vm2,vm3,vm4,vm5" else [shown], shown)
        tab.run("document.querySelector('#guests .open').click()")
        tab.wait("document.querySelector('#guest-dialog').open")
        for width, dark in VIEWS:
            tab.media(dark)
            tab.resize(width)
            tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 150)))")
            theme = "dark" if dark else "light"
            check.found(f"the dialog of a guest: contrast, {theme}, {width} px", tab.run("check.texts()"))
            if shots:
                tab.shoot(f"{shots}/guest-{width}-{theme}.png", whole=False)
        check.found("the dialog of a guest: names", names(tab))
        tab.run("document.querySelector('#guest-actions button').click()")
        tab.wait("document.querySelector('#action-dialog').open")
        check.found("the dialog of an action: names", names(tab))
        if shots:
            tab.shoot(f"{shots}/guest-fill-{NARROW}-dark.png", whole=False)
        type_into(tab, "#action-input", "512")
        # No request can carry the first one.
        for words, answer in (("schlüssel–wort", "Not sent"), ("a-token-of-nobody", "Refused"), (token, "Done.")):
            tab.run("document.querySelector('#action-token').value = ''")
            type_into(tab, "#action-token", words)
            tab.press("Enter")
            tab.wait(f"/^({answer}|No answer)/.test(document.querySelector('#action-answer').textContent)")
            shown = tab.run("document.querySelector('#action-answer').textContent")
            check(f"the token “{words}” is answered", [] if shown.startswith(answer) else [shown], shown)
        # A guest that has all of its pages needs the handler no more.
        tab.wait("document.querySelector('#guest-dialog-title').textContent.endsWith('is gone')", 30)
        tab.wait("document.querySelectorAll('#guests tr.row').length === 4")
        check("a guest that was filled leaves", [])
    finally:
        tab.close()


def live(check, browser, given):
    agents = [Agent(browser, "source", given.source), Agent(browser, "destination", given.destination)]
    for agent in agents:
        agent.look(check, given.shots)
    print("watching", flush=True)
    source, destination = agents

    def follow(state):
        end = time.monotonic() + 120
        while not all(state in agent.tried for agent in agents):
            if time.monotonic() > end:
                raise TimeoutError(f"the pages never show {state}, only {[agent.seen for agent in agents]}")
            for agent in agents:
                agent.look(check, given.shots)
            time.sleep(0.1)

    follow("postcopy-active")
    source.act(check, "Pause", given.token)
    follow("postcopy-paused")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp:127.0.0.1:{free.getsockname()[1]}"
    destination.act(check, "Recover", given.token, address)
    source.act(check, "Recover", given.token, address)
    follow("completed")
    for agent in agents:
        agent.end(check)
    for name in ("source", "destination", "handler", "server"):
        audit(check, browser, getattr(given, name), name, given.shots)
    colours(check, browser, given.destination)
    node(check, browser, given.handler, given.token, given.shots)


def memory_map(check, browser, base):
    tab = Tab(browser)
    try:
        tab.open(f"{base}/agent-completed/")
        tab.wait("document.querySelector('#map canvas')?.width > 0")
        tab.run("document.querySelector('#map [role=slider]').focus()")
        for key in ("ArrowRight", "ArrowDown"):
            tab.press(key)
        value = tab.run("document.querySelector('#map [role=slider]').getAttribute('aria-valuetext')")
        check("the keyboard reads cells of the map", [] if value and "pages" in value else [str(value)], value)
        tab.press("End")
        value = tab.run("document.querySelector('#map [role=slider]').getAttribute('aria-valuetext')")
        last = f"to {web_mock.Memory.VIDEO_PAGES - 1:,}:"
        check("the last cell ends with the last page of its region", [] if last in value else [value], value)
        tab.run("document.querySelectorAll('#legend button')[2].click()")
        pressed = tab.run("document.querySelectorAll('#legend button[aria-pressed=true]').length")
        check("a kind can be shown alone", [] if pressed == 1 else [f"{pressed} pressed"])
    finally:
        tab.close()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("url", nargs="?")
    options.add_argument("--live", action="store_true", help="checks the pages of real processes")
    for name in ("source", "destination", "handler", "server", "token"):
        options.add_argument(f"--{name}")
    options.add_argument("--shots", metavar="DIR")
    options.add_argument("--only", metavar="WORD", help="only the scenarios whose names have this word")
    options.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    given = options.parse_args()
    if not given.chromium:
        sys.exit("page_check.py: there is no chromium: apt install chromium")
    if given.shots:
        pathlib.Path(given.shots).mkdir(parents=True, exist_ok=True)
    check, browser = Check(), Browser(given.chromium)
    try:
        if given.live:
            live(check, browser, given)
        elif given.url:
            audit(check, browser, given.url, "page", given.shots)
            colours(check, browser, given.url)
        else:
            mock = web_mock.serve()
            base = f"http://127.0.0.1:{mock.server_address[1]}"
            for name in [*web_mock.SCENARIOS, *web_mock.REPORTS]:
                if not given.only or given.only in name:
                    audit(check, browser, f"{base}/{name}/", name, given.shots)
            if not given.only:
                colours(check, browser, f"{base}/agent-migrating/")
                connection(check, browser, base, given.shots)
                actions(check, browser, base, given.shots)
                guests(check, browser, base, given.shots)
                memory_map(check, browser, base)
                first_paint(check, browser, f"{base}/agent-source/")
                long_tasks(check, browser, f"{base}/agent-migrating/", "an agent with 8 GiB")
                long_tasks(check, browser, f"{base}/handler/", "1000 guests, all changing")
                long_tasks(check, browser, f"{base}/handler/", "1000 guests on a phone", NARROW)
            mock.shutdown()
    finally:
        browser.close()
    print(f"{check.passed} checks passed, {check.failed} failed")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
