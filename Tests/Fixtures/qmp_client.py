"""Drives a source and a destination with QEMU's own client, and checks that they behave as QEMU's would.

Usage: qmp_client.py completes|fails SOURCE_SOCKET DESTINATION_SOCKET
"""
import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


def word(event):
    """What an event says: the state of a migration, or its own name."""
    stamp = event["timestamp"]
    expect("timestamp", [type(stamp[unit]) for unit in ("seconds", "microseconds")], [int, int])
    return event["data"]["status"] if event["event"] == "MIGRATION" else event["event"]


async def told(listener, last):
    """The events up to one."""
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
        expect("speed", await refusal(client, "migrate-set-parameters", {"max-bandwidth": 1}), "GenericError")
        names = [command["name"] for command in await client.execute("query-commands")]
        expect("commands lack", {"migrate", "migrate-incoming", "query-migrate", "stop", "cont"} - set(names), set())
    expect("status", [await status(source), await status(destination)], ["running", "inmigrate"])
    await destination.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0", "exit-on-error": False})
    address = (await destination.execute("query-migrate"))["socket-address"][0]
    await source.execute("migrate", {"uri": f"tcp:{address['host']}:{address['port']}"})
    await source.execute("migrate-start-postcopy")


async def completes(source, destination, of_source, of_destination):
    await begin(source, destination)
    expect(
        "events of the source",
        await told(of_source, "completed"),
        ["setup", "active", "STOP", "device", "postcopy-device", "postcopy-active", "completed"],
    )
    expect(
        "events of the destination",
        await told(of_destination, "completed"),
        ["setup", "active", "postcopy-device", "postcopy-active", "RESUME", "completed"],
    )
    expect("status", [await status(source), await status(destination)], ["postmigrate", "running"])
    left, arrived = [await client.execute("query-migrate") for client in (source, destination)]
    expect("ends", [left["status"], arrived["status"]], ["completed", "completed"])
    expect("remaining", left["ram"]["remaining"], 0)
    expect("downtime", left["downtime"] <= left["total-time"], True)
    expect("faults", sum(arrived["postcopy-latency-dist"]) > 0, True)
    expect("threads", [len(arrived[f"postcopy-vcpu-{what}"]) for what in ("latency", "blocktime")], [1, 1])
    expect("latency", arrived["postcopy-latency"] > 0, True)
    expect("blocktime", arrived["postcopy-blocktime"], arrived["postcopy-vcpu-blocktime"][0])
    expect("cont on the source", await refusal(source, "cont"), "GenericError")
    await destination.execute("stop")
    expect("STOP", await told(of_destination, "STOP"), ["STOP"])
    expect("status", await status(destination), "paused")
    await destination.execute("cont")
    expect("RESUME", await told(of_destination, "RESUME"), ["RESUME"])
    await source.execute("quit")
    expect("SHUTDOWN", await told(of_source, "SHUTDOWN"), ["SHUTDOWN"])


async def fails(source, destination, of_source, of_destination):
    await begin(source, destination)
    expect(
        "events of the source",
        await told(of_source, "RESUME"),
        ["setup", "active", "STOP", "device", "postcopy-device", "failed", "RESUME"],
    )
    expect(
        "events of the destination",
        await told(of_destination, "failed"),
        ["setup", "active", "postcopy-device", "failed"],
    )
    expect("status of the source", await status(source), "running")
    left = await source.execute("query-migrate")
    expect("end", [left["status"], "broken" in left["error-desc"]], ["failed", True])
    expect("cont on the destination", await refusal(destination, "cont"), "GenericError")


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


asyncio.run(asyncio.wait_for(main({"completes": completes, "fails": fails}[sys.argv[1]], *sys.argv[2:]), 60))
