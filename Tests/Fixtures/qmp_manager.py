"""Drives a source and a destination as libvirt drives QEMU, with the commands in the same order.

The script queries what the agents support, sets every listed capability, sets all of them back, and follows events.

Usage: qmp_manager.py moves|cancels|paused SOURCE_SOCKET DESTINATION_SOCKET
"""
import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient

# The capabilities and parameters that libvirt knows; it ignores the rest of the lists.
CAPABILITIES = (
    "xbzrle auto-converge rdma-pin-all postcopy-ram compress pause-before-switchover late-block-activate multifd "
    "dirty-bitmaps return-path zero-copy-send postcopy-preempt switchover-ack mapped-ram"
).split()
PARAMETERS = (
    "cpu-throttle-initial cpu-throttle-increment tls-creds tls-hostname max-bandwidth downtime-limit "
    "xbzrle-cache-size max-postcopy-bandwidth multifd-channels multifd-compression multifd-zlib-level "
    "multifd-zstd-level avail-switchover-bandwidth"
).split()


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


class Schema:
    """The answer to query-qmp-schema, searched by paths."""

    def __init__(self, entries):
        self.entries = {entry["name"]: entry for entry in entries}
        expect("names of the schema that are there twice", len(entries) - len(self.entries), 0)

    def names(self, meta_type):
        return {name for name, entry in self.entries.items() if entry["meta-type"] == meta_type}

    def has(self, command, kind, *members):
        entry = self.entries.get(command)
        if entry is None or kind not in entry:
            return False
        entry = self.entries[entry[kind]]
        for name in members:
            while entry["meta-type"] == "array":
                entry = self.entries[entry["element-type"]]
            found = [member for member in entry.get("members", []) if member["name"] == name]
            if not found:
                return False
            entry = self.entries[found[0]["type"]]
        return True


class Agent:
    """One side of a migration."""

    def __init__(self, name):
        self.client = QMPClient(name)
        self.execute = self.client.execute

    async def connect(self, socket):
        """Connects, and sends the queries that every QEMU gets."""
        await self.client.connect(socket)
        version = (await self.execute("query-version"))["qemu"]
        expect("a version that has channels", version["major"] >= 8, True)
        commands = {command["name"] for command in await self.execute("query-commands")}
        events = {event["name"] for event in await self.execute("query-events")}
        self.schema = Schema(await self.execute("query-qmp-schema"))
        expect("commands of the schema", self.schema.names("command"), commands)
        expect("events of the schema", self.schema.names("event"), events)
        wanted = {
            "migrate", "migrate-incoming", "migrate-set-capabilities", "migrate-set-parameters", "migrate-start-postcopy",
            "migrate_cancel", "migrate-pause", "migrate-recover", "query-migrate", "query-migrate-capabilities",
            "query-migrate-parameters", "query-migrationthreads", "query-status", "query-name", "stop", "cont", "quit",
        }
        expect("commands that lack", wanted - commands, set())
        expect("events that lack", {"MIGRATION", "MIGRATION_PASS", "STOP", "RESUME", "SHUTDOWN"} - events, set())
        for path in (
            ("migrate", "arg-type", "channels", "addr", "transport"),
            ("migrate-incoming", "arg-type", "exit-on-error"),
            ("migrate-set-parameters", "arg-type", "max-postcopy-bandwidth"),
            ("query-migrate", "ret-type", "ram", "remaining"),
        ):
            expect(f"{path} in the schema", self.schema.has(*path), True)
        for command in commands:
            if command.startswith("query-"):
                await self.execute(command)
        listed = {entry["capability"] for entry in await self.execute("query-migrate-capabilities")}
        self.capabilities = [name for name in CAPABILITIES if name in listed]
        expect("postcopy", "postcopy-ram" in self.capabilities, True)
        await self.set_capabilities({"events": True})

    async def set_capabilities(self, states):
        entries = [{"capability": name, "state": state} for name, state in states.items()]
        await self.execute("migrate-set-capabilities", {"capabilities": entries})

    async def prepare(self, *wanted):
        """Sets every listed capability, and keeps the earlier parameters."""
        await self.set_capabilities({name: name in wanted for name in self.capabilities})
        parameters = await self.execute("query-migrate-parameters")
        self.kept = {name: parameters[name] for name in PARAMETERS if name in parameters}
        changed = {"max-postcopy-bandwidth": 256 << 20, "multifd-channels": 4, "tls-creds": "", "tls-hostname": ""}
        await self.execute("migrate-set-parameters", changed)

    async def reset(self):
        """Restores the settings from before the migration."""
        await self.set_capabilities({name: False for name in self.capabilities})
        await self.execute("migrate-set-parameters", self.kept)
        parameters = await self.execute("query-migrate-parameters")
        expect("parameters set back", {name: parameters[name] for name in self.kept}, self.kept)

    async def until(self, last):
        """The events up to the first `last`: states of the migration, and names of other events."""
        words = []
        async for event in self.listener:
            words.append(event["data"]["status"] if event["event"] == "MIGRATION" else event["event"])
            if words[-1] == last:
                return words

    async def status(self):
        return (await self.execute("query-status"))["status"]

    async def refusal(self, command, arguments=None):
        try:
            return f"returned {await self.execute(command, arguments)}"
        except ExecuteError as error:
            return error.error_class

    async def progress(self):
        """The answer to query-migrate, after a check that its numbers fit each other."""
        answer = await self.execute("query-migrate")
        ram = answer["ram"]
        expect("what remains is of the total", 0 <= ram["remaining"] <= ram["total"], True)
        expect("normal bytes", ram["normal-bytes"], ram["transferred"])
        expect("times", 0 <= answer["setup-time"] <= answer["total-time"], True)
        return answer


async def begin(source, destination):
    await destination.prepare("postcopy-ram", "return-path")
    await destination.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0", "exit-on-error": False})
    address = (await destination.execute("query-migrate"))["socket-address"][0]
    await source.prepare("postcopy-ram", "return-path", "pause-before-switchover")
    await source.execute("migrate-set-parameters", {"max-bandwidth": 9223372036853727232})
    expect("a descriptor that is handed over", await source.refusal("migrate", {"uri": "fd:migrate"}), "GenericError")
    channel = {"channel-type": "main", "addr": {"transport": "socket", **address}}
    await source.execute("migrate", {"detach": True, "channels": [channel]})
    expect("the way to active", (await source.until("active"))[-2:], ["setup", "active"])
    answer = await source.progress()
    expect("remaining before the switchover", answer["ram"]["remaining"], answer["ram"]["total"])
    names = {thread["name"] for thread in await source.execute("query-migrationthreads")}
    expect("the control connection's threads", {"control-read", "control-pulse"} - names, set())


async def switch_over(source):
    await source.execute("migrate-start-postcopy")
    words = []
    if "pause-before-switchover" in source.capabilities:
        words += await source.until("pre-switchover")
        await source.execute("migrate-continue", {"state": "pre-switchover"})
    return words + await source.until("postcopy-active")


async def end(source, destination):
    """Polls until the migration has completed, and restores the settings of both sides."""
    while (await source.progress())["status"] != "completed":
        await asyncio.sleep(0.01)
    await destination.until("completed")
    answer = await source.progress()
    expect("remaining", answer["ram"]["remaining"], 0)
    for side in (source, destination):
        await side.reset()
    await source.execute("quit")
    expect("the source's end", (await source.until("SHUTDOWN"))[-1], "SHUTDOWN")


async def moves(source, destination):
    await begin(source, destination)
    words = await switch_over(source)
    expect("the stop", words.count("STOP"), 1)
    await destination.execute("cont")
    expect("the start", (await destination.until("RESUME"))[-1], "RESUME")
    expect("status", await destination.status(), "running")
    await end(source, destination)


async def cancels(source, destination):
    await begin(source, destination)
    await source.execute("migrate_cancel")
    expect("the cancel", (await source.until("cancelled"))[-1], "cancelled")
    expect("end", (await source.progress())["status"], "cancelled")
    expect("status", await source.status(), "running")
    await source.reset()
    # The capability postcopy-ram was turned off again, so that no migration can begin.
    expect("no postcopy", await source.refusal("migrate", {"uri": "tcp:127.0.0.1:1"}), "GenericError")


async def paused(source, destination):
    await source.execute("stop")
    expect("the stop", await source.until("STOP"), ["STOP"])
    await begin(source, destination)
    words = await switch_over(source)
    expect("a second stop", words.count("STOP"), 0)
    await destination.until("postcopy-active")
    expect("status", await destination.status(), "paused")
    await end(source, destination)
    expect("status", await destination.status(), "paused")
    await destination.execute("cont")
    expect("the start", await destination.until("RESUME"), ["RESUME"])
    expect("status", await destination.status(), "running")


async def main(scenario, *sockets):
    sides = [Agent("source"), Agent("destination")]
    with sides[0].client.listener() as of_source, sides[1].client.listener() as of_destination:
        for side, socket, listener in zip(sides, sockets, (of_source, of_destination)):
            side.listener = listener
            await side.connect(socket)
        await scenario(*sides)
        for side in sides:
            try:
                await side.client.disconnect()
            except EOFError:
                pass  # It was told to quit, and was faster.


scenarios = {scenario.__name__: scenario for scenario in (moves, cancels, paused)}
asyncio.run(asyncio.wait_for(main(scenarios[sys.argv[1]], *sys.argv[2:]), 60))
