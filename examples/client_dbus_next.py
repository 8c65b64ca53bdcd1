#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a command in a mount namespace, with python3-dbus-next and asyncio."""

import asyncio
import os
import sys

from dbus_next import BusType, DBusError, Variant
from dbus_next.aio import MessageBus

NAME, PATH = "org.mountnsd1", "/org/mountnsd1"


async def main() -> int:
    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()

    async def at(path: str, interface: str):
        description = await bus.introspect(NAME, path)
        return bus.get_proxy_object(NAME, path, description).get_interface(f"{NAME}.{interface}")

    try:
        manager = await at(PATH, "Manager")
        path = await manager.call_create("example", {"description": Variant("s", "Made by an example")})
        namespace = await at(path, "Namespace")
        await namespace.call_mount("tmpfs", "/mnt", "tmpfs", "size=1m")

        # What it writes comes through a pipe.  That it has ended we learn from its pidfd; how, from a signal.
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        manager.on_exited(lambda pid, name, code, status: exited.set_result(status))
        reading, writing = os.pipe()
        command = ["sh", "-c", "touch /mnt/hi-there; ls /mnt; exit 7"]
        _, pidfd = await namespace.call_enter(command, {1: writing}, {})
        os.close(writing)
        os.close(pidfd)
        with os.fdopen(reading) as output:
            print("it says:", (await asyncio.to_thread(output.read)).strip())
        print("its exit status:", await exited)

        await namespace.call_destroy({"kill": Variant("b", True)})
    except DBusError as error:
        print(f"{error.type}: {error.text}", file=sys.stderr)
        return 1
    print("outside:", "there, too" if os.path.exists("/mnt/hi-there") else "not there")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
