"""Drives a source and a destination with QEMU's own client, and checks that they behave as QEMU's would.

Usage: qmp_client.py completes|fails|cancels|recovers SOURCE_SOCKET DESTINATION_SOCKET
"""
import asyncio
import socket
import sys

from qemu.qmp import ExecuteError, QMPClient


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


def word(event):
    """The state of a migration that an event reports, or the name of another event."""
    stamp = event["timestamp"]
    expect("timestamp", [type(stamp[unit]) for unit in ("seconds", "microseconds")], [int, int])
    return event["data"]["status"] if event["event"] == "MIGRATION" else event["event"]


async def told(listener, last):
    """The events up to the first `last`."""
    words = []
    async for event in listener:
        words.append(word(event))
        if words[-1] == last:
            return words


async def refusal(client, command, arguments=None):
    """The class of the error with which a command fails."""
    try:
        return f"returned {await client.execute(command, arguments)}"
    except ExecuteError as error:
        return error.error_class


async def status(client):
    return (await client.execute("query-status"))["status"]


async def begin(source, destination):
    for client in (source, destination):
        expect("capabilities offered", client.greeting.QMP.capabilities, ["oob"])
        expect("before a migration", await client.execute("query-migrate"), {})
        wanted = [{"capability": name, "state": True} for name in ("postcopy-ram", "events", "postcopy-preempt")]
        await client.execute("migrate-set-capabilities", {"capabilities": wanted})
        expect("no such command", await refusal(client, "no-such-command"), "CommandNotFound")
        expect("no uri", await refusal(client, "migrate"), "GenericError")
        wanted = [{"capability": "multifd", "state": True}]
        expect("multifd", await refusal(client, "migrate-set-capabilities", {"capabilities": wanted}), "GenericError")
        expect("speed", await refusal(client, "migrate-set-parameters", {"xbzrle-cache-size": 1}), "GenericError")
        await client.execute("migrate-set-parameters", {"max-bandwidth": 1 << 30, "downtime-limit": 100})
        names = [command["name"] for command in await client.execute("query-commands")]
        expect("commands lack", {"migrate", "migrate-incoming", "query-migrate", "stop", "cont"} - set(names), set())
    expect("status", [await status(source), await status(destination)], ["running", "inmigrate"])
    await destination.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0", "exit-on-error": False})
    # cont is sent before there is a workload, and is answered when the workload runs; other commands work meanwhile.
    cont = asyncio.create_task(refusal(destination, "cont"))
    address = (await destination.execute("query-migrate"))["socket-address"][0]
    await source.execute("migrate", {"uri": f"tcp:{address['host']}:{address['port']}"})
    await source.execute("migrate-start-postcopy")
    return cont


async def completes(source, destination, of_source, of_destination):
    cont = await begin(source, destination)
    expect(
        "events of the source",
        await told(of_source, "completed"),
        ["setup", "active", "MIGRATION_PASS", "STOP", "device", "postcopy-device", "postcopy-active", "completed"],
    )
    expect(
        "events of the destination",
        await told(of_destination, "completed"),
        ["setup", "active", "postcopy-device", "postcopy-active", "RESUME", "completed"],
    )
    expect("the early cont", await cont, "returned {}")
    expect("status", [await status(source), await status(destination)], ["postmigrate", "running"])
    left, arrived = [await client.execute("query-migrate") for client in (source, destination)]
    expect("ends", [left["status"], arrived["status"]], ["completed", "completed"])
    expect("remaining", left["ram"]["remaining"], 0)
    expect("downtime", left["downtime"] <= left["total-time"], True)
    expect("faults", sum(arrived["postcopy-latency-dist"]) > 0, True)
    expect("threads", [len(arrived[f"postcopy-vcpu-{what}"]) for what in ("latency", "blocktime")], [1, 1])
    expect("latency", arrived["postcopy-latency"] > 0, True)
    expect("blocktime", abs(arrived["postcopy-blocktime"] - arrived["postcopy-vcpu-blocktime"][0]) <= 1 + arrived["postcopy-blocktime"] // 50, True)
    expect("cont on the source", await refusal(source, "cont"), "GenericError")
    start = (await destination.execute("pageferry-report"))["destination"]["start"]
    await destination.execute("stop")
    expect("STOP", await told(of_destination, "STOP"), ["STOP"])
    expect("status", await status(destination), "paused")
    await destination.execute("cont")
    expect("RESUME", await told(of_destination, "RESUME"), ["RESUME"])
    expect("the arrival's start", (await destination.execute("pageferry-report"))["destination"]["start"], start)
    await source.execute("quit")
    expect("SHUTDOWN", await told(of_source, "SHUTDOWN"), ["SHUTDOWN"])


async def fails(source, destination, of_source, of_destination):
    cont = await begin(source, destination)
    expect(
        "events of the source",
        await told(of_source, "RESUME"),
        ["setup", "active", "MIGRATION_PASS", "STOP", "device", "postcopy-device", "failed", "RESUME"],
    )
    expect(
        "events of the destination",
        await told(of_destination, "failed"),
        ["setup", "active", "postcopy-device", "failed"],
    )
    expect("the early cont", await cont, "GenericError")
    expect("status of the source", await status(source), "running")
    left = await source.execute("query-migrate")
    expect("end", [left["status"], "broken" in left["error-desc"]], ["failed", True])
    expect("cont on the destination", await refusal(destination, "cont"), "GenericError")


async def cancels(source, destination, of_source, of_destination):
    """The workload is taken back after postcopy became active, while the destination takes seconds to start."""
    await begin(source, destination)
    await told(of_source, "postcopy-active")
    await source.execute("migrate_cancel")
    expect("status of the source", await status(source), "running")
    expect("events of the source", await told(of_source, "RESUME"), ["cancelling", "cancelled", "RESUME"])
    expect("events of the destination", (await told(of_destination, "cancelled"))[-2:], ["postcopy-device", "cancelled"])
    expect("end", (await source.execute("query-migrate"))["status"], "cancelled")
    expect("status of the destination", await status(destination), "inmigrate")
    expect("cont on the destination", await refusal(destination, "cont"), "GenericError")
    expect("nothing to cancel", await source.execute("migrate_cancel"), {})


async def recovers(source, destination, of_source, of_destination):
    """The link is broken and reconnected twice, once at another address."""
    await source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 4 << 20})
    expect("nothing to pause", await refusal(source, "migrate-pause"), "GenericError")
    expect("nothing to recover", await refusal(destination, "migrate-recover", {"uri": "tcp:127.0.0.1:0"}), "GenericError")
    await begin(source, destination)
    for client in (of_source, of_destination):
        await told(client, "postcopy-active")
    expect("RESUME", await told(of_destination, "RESUME"), ["RESUME"])
    # Wait until the source knows of the start too. Otherwise a cancel would wait for the next link to learn of it.
    while "downtime" not in await source.execute("query-migrate"):
        await asyncio.sleep(0.01)
    for _ in range(2):
        await source.execute("migrate-pause", oob=True)
        for client in (of_source, of_destination):
            expect("events of the pause", await told(client, "postcopy-paused"), ["postcopy-paused"])
        for client in (source, destination):
            expect("pause", (await client.execute("query-migrate"))["status"], "postcopy-paused")
        expect("status", [await status(source), await status(destination)], ["finish-migrate", "running"])
        expect("cancel in a pause", await refusal(source, "migrate_cancel"), "GenericError")
        expect("recovery of a new migration", await refusal(source, "migrate", {"uri": "tcp:127.0.0.1:1"}), "GenericError")
        port = free_port()
        await destination.execute("migrate-recover", {"uri": f"tcp:127.0.0.1:{port}"}, oob=True)
        await source.execute("migrate", {"uri": f"tcp:127.0.0.1:{port}", "resume": True})
        wanted = ["postcopy-recover-setup", "postcopy-recover", "postcopy-active"]
        expect("events of the recovery", await told(of_source, "postcopy-active"), wanted)
        expect("events of the recovery", (await told(of_destination, "postcopy-active"))[-2:], wanted[1:])
    await source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
    for client in (of_source, of_destination):
        expect("events of the end", await told(client, "completed"), ["completed"])


def free_port():
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main(scenario, source_socket, destination_socket):
    source, destination = QMPClient("source"), QMPClient("destination")
    with source.listener() as of_source, destination.listener() as of_destination:
        await source.connect(source_socket)
        await destination.connect(destination_socket)
        await scenario(source, destination, of_source, of_destination)
        for client in (source, destination):
            try:
                await client.disconnect()
            except EOFError:
                pass  # It was told to quit, and was faster.


scenarios = {scenario.__name__: scenario for scenario in (completes, fails, cancels, recovers)}
asyncio.run(asyncio.wait_for(main(scenarios[sys.argv[1]], *sys.argv[2:]), 60))
