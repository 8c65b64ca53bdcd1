#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a command in a mount namespace, with GLib (python3-gi); in C and other languages the calls are the same."""

import os
import sys

import gi

gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib

NAME, PATH = "org.mountnsd1", "/org/mountnsd1"
MANAGER, NAMESPACE = f"{NAME}.Manager", f"{NAME}.Namespace"


def main() -> int:
    bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)

    def call(path, interface, method, values, fds=None):
        # A person may be asked for a password: that takes as long as it takes.
        flags, for_ever = Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION, GLib.MAXINT32
        answer, got = bus.call_with_unix_fd_list_sync(
            NAME, path, interface, method, values, None, flags, for_ever, fds, None
        )
        return answer.unpack(), got

    try:
        options = {"description": GLib.Variant("s", "Made by an example")}
        (path,), _ = call(PATH, MANAGER, "Create", GLib.Variant("(sa{sv})", ("example", options)))
        where = GLib.Variant("(ssss)", ("tmpfs", "/mnt", "tmpfs", "size=1m"))
        call(path, NAMESPACE, "Mount", where)

        # What it writes comes through a pipe; the handle 0 is the first descriptor in the list.
        loop, statuses = GLib.MainLoop(), []

        def exited(_bus, _sender, _path, _interface, _signal, values):
            statuses.append(values.unpack()[3])
            loop.quit()

        bus.signal_subscribe(NAME, MANAGER, "Exited", PATH, None, Gio.DBusSignalFlags.NONE, exited)
        reading, writing = os.pipe()
        command = ["sh", "-c", "touch /mnt/hi-there; ls /mnt; exit 7"]
        arguments = GLib.Variant("(asa{uh}a{sv})", (command, {1: 0}, {}))
        _, got = call(path, NAMESPACE, "Enter", arguments, Gio.UnixFDList.new_from_array([writing]))
        os.close(got.get(0))  # a pidfd, for who wants to wait or to send a signal
        with os.fdopen(reading) as output:
            print("it says:", output.read().strip())
        loop.run()
        print("its exit status:", statuses[0])

        kill = GLib.Variant("(a{sv})", ({"kill": GLib.Variant("b", True)},))
        call(path, NAMESPACE, "Destroy", kill)
    except GLib.Error as error:
        print(error.message, file=sys.stderr)
        return 1
    print("outside:", "there, too" if os.path.exists("/mnt/hi-there") else "not there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
