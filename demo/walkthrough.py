# SPDX-License-Identifier: LGPL-2.1-or-later
"""What mountnsd does, shown with its own tools on this machine's kernel.

Every step is the command that a person would type, its real output, and whether
it did what it should.  The exit status is 0 if all steps did.  Nothing is left
behind, Ctrl-C included.

Where systemd and a system bus run, they are used: with the installed mountnsd,
or with this tree's and its bus policy placed for as long as it takes.  Anywhere
else a private bus is started.
"""

import contextlib
import ctypes
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.embedded import (
    SHIPPED_POLICY,
    EmbeddedBus,
    EmbeddedDaemon,
    interrupted,
    remove_directory,
    temporary_directory,
)

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
PLACED_POLICY = Path("/etc/dbus-1/system.d/org.mountnsd1.conf")
INSTALLED_PINS = Path("/run/mountnsd/ns")
_SECONDS = 30

_CLONE_NEWNS = 0x20000
_IN_ATTRIB = 4
_IN_UNMOUNT = 0x2000


@dataclass(frozen=True)
class World:
    """Where the walkthrough happens: what it is, the environment of its commands, the pins, and mountnsctl."""

    what: str
    environment: Mapping[str, str]
    pins: Path
    mountnsctl: Sequence[str]


def quiet(*command: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command without showing it."""
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
    )


def bus_call(member: str, *arguments: str) -> str:
    """Call the system bus itself; its answer as busctl prints it, empty if there is none."""
    path = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    result = quiet("busctl", "--system", "call", *path, member, *arguments)
    return result.stdout.strip() if result.returncode == 0 else ""


def system_bus_answers() -> bool:
    """Whether systemd and a system bus run here."""
    return Path("/run/systemd/system").is_dir() and bool(bus_call("GetId"))


def installed() -> bool:
    """Whether an installed mountnsd owns its name on the system bus, once asked to."""
    return (
        bus_call("NameHasOwner", "s", "org.mountnsd1") == "b true"
        or bus_call("StartServiceByName", "su", "org.mountnsd1", "0") != ""
    )


@contextlib.contextmanager
def placed_policy() -> Iterator[None]:
    """Let root own org.mountnsd1 on the system bus for a while."""
    if PLACED_POLICY.exists():
        raise RuntimeError(f"{PLACED_POLICY} is there, but mountnsd is not running; start it or remove that")
    try:
        shutil.copy(SHIPPED_POLICY, PLACED_POLICY)
        bus_call("ReloadConfig")
        yield
    finally:
        PLACED_POLICY.unlink(missing_ok=True)
        bus_call("ReloadConfig")


@contextlib.contextmanager
def world() -> Iterator[World]:
    """The best place that this machine has."""
    with contextlib.ExitStack() as stack:
        if system_bus_answers() and installed():
            ctl = shutil.which("mountnsctl")
            command = [ctl] if ctl else [sys.executable, "-m", "mountnsd.ctl"]
            yield World("the installed mountnsd, on the system bus", os.environ, INSTALLED_PINS, command)
            return
        directory = temporary_directory()
        stack.callback(remove_directory, directory)
        if system_bus_answers():
            stack.enter_context(placed_policy())
            address, what = SYSTEM_BUS, "this tree's mountnsd, on the system bus"
        else:
            bus = stack.enter_context(EmbeddedBus(directory))
            address, what = bus.address, "this tree's mountnsd, on a private bus with the shipped policy"
        daemon = EmbeddedDaemon(address, directory)
        stack.callback(daemon.stop)
        daemon.start(directory / "mountnsd.log")
        environment = {**daemon.environment, "MOUNTNSD_RUNTIME_DIRECTORY": str(daemon.runtime)}
        yield World(what, environment, daemon.pins, [sys.executable, "-m", "mountnsd.ctl"])


class TmpfsWatch:
    """Tells when the filesystem at a path inside a namespace is gone for good: the kernel says so by inotify.

    Arguments: pin: of the namespace; path: inside it.
    """

    def __init__(self, pin: Path, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = int(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        child = os.fork()
        if child == 0:
            # A watch holds no mount; made by a child, because whoever enters cannot easily come back.
            namespace = os.open(pin, os.O_RDONLY)
            entered = libc.setns(namespace, _CLONE_NEWNS) == 0
            watched = libc.inotify_add_watch(self._inotify, os.fsencode(path), _IN_ATTRIB) >= 0
            os._exit(0 if entered and watched else 1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise RuntimeError(f"cannot watch {path} in {pin}")

    def gone(self, timeout: float) -> bool:
        """Whether the filesystem ends within a time."""
        while select.select([self._inotify], [], [], timeout)[0]:
            if int.from_bytes(os.read(self._inotify, 4096)[4:8], sys.byteorder) & _IN_UNMOUNT:
                return True
        return False

    def close(self) -> None:
        """End the watch."""
        os.close(self._inotify)


Check = Callable[[int, str], bool]


class Walkthrough:
    """Runs commands, shows them, and counts what did not hold."""

    def __init__(self, place: World) -> None:
        self._place = place
        self.failures = 0

    def title(self, text: str) -> None:
        """Say what comes."""
        print(f"\n{text}")

    def step(self, command: str, expected: str, check: Check) -> str:
        """Show a command, run it, show what it printed, and check it.

        Arguments: command: as a person types it; expected: what should hold; check: of exit status and output.
        Returns: the output.
        """
        print(f"# {command}")
        words = shlex.split(command)
        if words[0] == "mountnsctl":
            words[:1] = self._place.mountnsctl
        try:
            result = subprocess.run(
                words,
                env=self._place.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
            status, output = result.returncode, result.stdout
        except subprocess.TimeoutExpired:
            status, output = -1, f"(did not end within {_SECONDS} s)\n"
        print(output, end="" if output.endswith("\n") or not output else "\n")
        self.verdict(check(status, output), expected, f"exit status {status}")
        return output

    def verdict(self, holds: bool, expected: str, reason: str) -> None:
        """Say whether something holds, and why it does not."""
        if not holds:
            self.failures += 1
        print(f"✓ {expected}" if holds else f"✗ not so: {expected} ({reason})", flush=True)


def _row(output: str, name: str) -> list[str]:
    rows = [line.split() for line in output.splitlines()]
    return next((row for row in rows if row and row[0] == name), [])


def _free_name(place: World) -> str:
    """A name that no namespace has."""
    taken = {entry.name for entry in place.pins.iterdir()} if place.pins.is_dir() else set()
    return next(name for name in ["demo", *(f"demo-{n}" for n in range(2, 100))] if name not in taken)


def _mounts_on(path: str) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1] == path]


def walk(place: World, name: str) -> int:
    """The walkthrough; returns how many steps did not hold."""
    show = Walkthrough(place)
    pin = place.pins / name
    before = _mounts_on("/mnt")
    manager = "org.mountnsd1 /org/mountnsd1 org.mountnsd1.Manager"

    show.title("A namespace, with a name")
    show.step(f"mountnsctl create {name}", "it is created", lambda status, _: status == 0)

    show.title("Inside: a tmpfs on /mnt with a file in it")
    inside = shlex.quote("mount -t tmpfs tmpfs /mnt && touch /mnt/hi-there && ls /mnt")
    show.step(
        f"mountnsctl exec {name} sh -c {inside}",
        "the file is there, inside",
        lambda status, output: status == 0 and output.split() == ["hi-there"],
    )
    watch = TmpfsWatch(pin, "/mnt") if pin.exists() else None

    show.title("Outside: neither")
    show.step(
        "grep ' /mnt ' /proc/mounts",
        "the tmpfs is not mounted outside",
        lambda _, output: output.splitlines() == before,
    )
    show.step("stat /mnt/hi-there", "nor is the file there", lambda status, _: status == 1)

    show.title("No process is inside, and still it lives")
    listing = show.step(
        "mountnsctl list",
        "it is listed, with its inode and 0 processes",
        lambda status, output: (
            status == 0 and "mnt:[" in "".join(_row(output, name)) and _row(output, name)[-1] == "0"
        ),
    )
    inode = next((word[5:-1] for word in _row(listing, name) if word.startswith("mnt:[")), "?")
    show.step(
        "grep nsfs /proc/mounts",
        "what keeps it alive is a mount of its nsfs file",
        lambda _, output: any(line.split()[1] == str(pin) for line in output.splitlines()),
    )

    show.title("Enter again, from another process")
    show.step(
        f"mountnsctl enter {name} ls /mnt",
        "the file is still there",
        lambda status, output: status == 0 and output.split() == ["hi-there"],
    )

    show.title("The same for programs, over D-Bus, and for other tools, through the pin")
    show.step(
        f"busctl call {manager} List",
        f"the same namespace, {inode}",
        lambda status, output: status == 0 and f'"{name}"' in output and f" {inode} " in output,
    )
    show.step(
        f"nsenter --mount={pin} findmnt /mnt",
        "nsenter(1) finds the tmpfs",
        lambda status, output: status == 0 and "tmpfs" in output,
    )

    show.title("Destroy it")
    show.step(f"mountnsctl destroy {name}", "it is destroyed", lambda status, _: status == 0)
    show.step(f"ls {pin}", "the pin is gone", lambda status, _: status == 2)
    show.step(
        f"grep {pin} /proc/mounts", "and so is its mount", lambda status, output: status == 1 and not output
    )
    if watch is not None:
        show.verdict(watch.gone(5), "and the kernel has ended the tmpfs", "it lives still, after 5 s")
        watch.close()
    show.step(
        "mountnsctl list", "nothing of it is listed", lambda status, out: status == 0 and not _row(out, name)
    )
    return show.failures


def main() -> int:
    """Find a place, walk, and clean up."""
    if os.geteuid() != 0:
        print("mount namespaces are made by root: run this as root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, interrupted)
    try:
        with world() as place:
            print(f"This is {place.what}.")
            name = _free_name(place)
            try:
                failures = walk(place, name)
            finally:
                if (place.pins / name).exists():
                    quiet(*place.mountnsctl, "destroy", "--kill", name, environment=place.environment)
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind")
        return 130
    except RuntimeError as error:
        print(f"the walkthrough cannot start: {error}", file=sys.stderr)
        return 1
    print("\nAll of it holds." if failures == 0 else f"\n{failures} of the steps did not hold.")
    return 0 if failures == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
