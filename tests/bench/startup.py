# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long the daemon takes to be there: started with what it has to recover, and called for the first time.

Activation is dbus-daemon's own, without systemd, on a bus that runs as root.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from support import leaks
from support.client import BUS_NAME, BUS_PATH, MANAGER, NAME, PATH
from support.daemon import Daemon

from demo.embedded import SHIPPED_POLICY, end_process, start_dbus_daemon, write_bus_config

from .ground import Ground
from .peers import timed
from .wire import Refused, Wire, call

_SERVICE = "[D-BUS Service]\nName={name}\nExec={command}\nUser=root\n"
_GONE = 20.0  # seconds


def recovery(daemon: Daemon) -> float:
    """Kill the daemon and start another: the ms from its start until it says that it is ready."""
    daemon.kill(signal.SIGKILL, 60)
    return timed(lambda: daemon.start(120))


def cold_starts(ground: Ground, holder: str, times: int) -> list[float]:
    """Call a daemon that does not run, so that the bus starts it: the ms until List is answered."""
    with _activating_bus(ground, holder) as address, Wire(address) as wire:
        question = call(PATH, MANAGER, "List")
        found = []
        for _ in range(times):
            found.append(timed(lambda: wire.ask(question)))
            _end(wire)
        return found


@contextmanager
def _activating_bus(ground: Ground, holder: str) -> Iterator[str]:
    """A bus that starts the daemon when it is called; gives its address.  What it started is ended."""
    place = ground.room(f"activation-{holder}")
    for name in ("services", "etc"):
        (place / name).mkdir()
    if holder != "host":
        (place / "etc" / "mountnsd.toml").write_text(f'holder = "{holder}"\n')
    command = [str(ground.program.daemon), f"--runtime-directory={place / 'run'}"]
    command += [f"--config-directory={place / 'etc'}", f"--vendor-directory={place / 'vendor'}"]
    command += ["--launcher=fork", "--log-target=stderr", "--allow-foreign-namespace"]
    service = _SERVICE.format(name=NAME, command=" ".join(command))
    (place / "services" / f"{NAME}.service").write_text(service)
    config, socket = place / "bus.conf", place / "bus"
    write_bus_config(config, socket, [SHIPPED_POLICY])
    text = re.sub(r"\s*<user>.*</user>", "", config.read_text())
    activation = f"<servicedir>{place / 'services'}</servicedir>\n</busconfig>"
    config.write_text(text.replace("</busconfig>", activation))
    address = f"unix:path={socket}"
    old = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = address  # the bus hands its environment on
    try:
        running = start_dbus_daemon(config, place / "bus.log")
    finally:
        del os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
        if old is not None:
            os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = old
    try:
        yield address
    finally:
        below = leaks.descendants(running.pid)
        end_process(running)
        for pid in below:
            leaks.end(pid)


def _end(wire: Wire) -> None:
    """End the daemon that was started, and wait until its name is free."""
    owner = call(BUS_PATH, BUS_NAME, "GetConnectionUnixProcessID", "s", NAME, to=BUS_NAME)
    pid = int.from_bytes(wire.ask(owner).body[:4], "little")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GONE
    with suppress(Refused):
        while time.monotonic() < deadline:
            wire.ask(owner)
            time.sleep(0.01)
        raise TimeoutError(f"mountnsd {pid} does not end")
    if not leaks.wait_gone(pid):
        raise TimeoutError(f"mountnsd {pid} does not end")
