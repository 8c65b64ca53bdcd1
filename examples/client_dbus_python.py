#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a command in a mount namespace, with python3-dbus."""

import os
import select
import sys

import dbus

NAME, PATH = "org.mountnsd1", "/org/mountnsd1"


def main() -> int:
    bus = dbus.SystemBus()
    manager = dbus.Interface(bus.get_object(NAME, PATH), f"{NAME}.Manager")
    options = dbus.Dictionary({"description": "Made by an example"}, signature="sv")
    try:
        path = manager.Create("example", options)
        namespace = dbus.Interface(bus.get_object(NAME, path), f"{NAME}.Namespace")
        namespace.Mount("tmpfs", "/mnt", "tmpfs", "size=1m")

        # What it writes comes through a pipe, and its pidfd is readable once it has ended.
        reading, writing = os.pipe()
        fds = dbus.Dictionary({dbus.UInt32(1): dbus.types.UnixFd(writing)}, signature="uh")
        os.close(writing)
        command = ["sh", "-c", "touch /mnt/hi-there; ls /mnt"]
        _, pidfd = namespace.Enter(command, fds, dbus.Dictionary({}, signature="sv"))
        del fds  # the library's copy of the pipe's end
        with os.fdopen(reading) as output:
            print("it says:", output.read().strip())
        ended = pidfd.take()
        select.select([ended], [], [])
        os.close(ended)

        namespace.Destroy(dbus.Dictionary({"kill": True}, signature="sv"))
    except dbus.DBusException as error:
        print(f"{error.get_dbus_name()}: {error.get_dbus_message()}", file=sys.stderr)
        return 1
    print("outside:", "there, too" if os.path.exists("/mnt/hi-there") else "not there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
