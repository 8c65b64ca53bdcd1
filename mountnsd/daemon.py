# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon: start, ready, reload, idle, stop.

It keeps nothing that a kill could lose: what it knows is in the holder and in
the metadata, and a start is a recovery.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import mountnsd
from mountnsd import config, declaration, garbage, log, names, room, stall, stream
from mountnsd.bus import Bus, CallError, Disconnected
from mountnsd.errors import Error
from mountnsd.holder import Holder
from mountnsd.interface import PEER
from mountnsd.launcher import Launcher
from mountnsd.metadata import MetadataStore
from mountnsd.named import Limits
from mountnsd.notice import Notice
from mountnsd.records import Records
from mountnsd.registry import Registry
from mountnsd.running import Starter
from mountnsd.service import BUS_NAME, Service
from mountnsd.transient import TransientLauncher
from mountnsd.units import Units
from systemd import daemon as systemd

logger = logging.getLogger(__name__)

RUNTIME_DIRECTORY = Path("/run/mountnsd")
VENDOR_DIRECTORY = Path("/usr/lib/mountnsd")
_EARLIER_DAEMON = 5.0  # seconds that one which owns our name may take to answer
# A helper thread that looks at /proc gives the interpreter up with each call of the kernel, and gets it back from a
# busy event loop after this at most: with Python's 5 ms a List of a hundred processes took 0.2 s.
_SWITCH_SEC = 0.0001
_INITIAL_INODE = 0xEFFFFFF8  # MNT_NS_INIT_INO, include/uapi/linux/nsfs.h


class StartError(Exception):
    """Why the daemon does not start, and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the daemon was started."""

    runtime_directory: Path
    config_directory: Path
    vendor_directory: Path
    launcher: str  # auto, systemd, fork
    address: str  # of the bus

    @property
    def declared(self) -> tuple[Path, ...]:
        """The directories in which namespaces are declared."""
        return tuple(
            place / declaration.DIRECTORY for place in (self.config_directory, self.vendor_directory)
        )


async def run(chosen: Settings) -> int:
    """Serve until told to stop.  Returns the exit status.

    Raises: StartError, config.ConfigError, errors.Error, OSError.
    """
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _set, stop, number.name)
    configured = config.load(chosen.config_directory)
    holder = Holder.ensure(str(chosen.runtime_directory), hide=configured.holder == config.HIDDEN)
    registry = Registry(holder, MetadataStore(holder.runtime_directory), _limits(configured))
    try:
        registry.recover()
        bus = await Bus.connect(chosen.address)
        try:
            service = Service(bus, registry, await _starter(bus, registry, chosen), chosen.declared)
            return await Daemon(bus, registry, service, chosen, configured).serve(stop)
        finally:
            bus.close()
    except stream.ConnectError as error:
        raise StartError(f"{error}. Start the bus, or set DBUS_SYSTEM_BUS_ADDRESS.") from None
    except Disconnected as error:
        raise StartError(f"The bus ended the connection: {error}.") from None
    except CallError as error:
        raise StartError(f"The bus at {chosen.address} does not answer as a bus does: {error}.") from None
    finally:
        registry.close()


async def _starter(bus: Bus, registry: Registry, chosen: Settings) -> Starter:
    """What starts processes: systemd where it runs and is on our bus, unless we were told otherwise."""
    systemd_units = Units(bus)
    with_systemd = chosen.launcher == "systemd"
    if chosen.launcher == "auto":
        with_systemd = bool(systemd.booted()) and await systemd_units.there()
    if not with_systemd:
        return Launcher()
    records = Records(registry.holder.runtime_directory)
    return TransientLauncher(systemd_units, records, registry.__contains__)


def _limits(configured: config.Config) -> Limits:
    return Limits(configured.max_namespaces, configured.max_namespaces_per_user)


class Daemon:
    """From owning the name to giving it up."""

    def __init__(
        self, bus: Bus, registry: Registry, service: Service, chosen: Settings, configured: config.Config
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._service = service
        self._chosen = chosen
        self._configured = configured
        self._idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idling: asyncio.Future[None] = self._idle

    async def serve(self, stop: asyncio.Future[str]) -> int:
        """Serve until told to stop, idle for long enough, or cut off from the bus.  Returns the exit status.

        Raises: StartError, Disconnected.
        """
        service = self._service
        service.start()
        try:
            owned = await _own_name(self._bus)
        except CallError as error:
            raise StartError(
                f"The bus does not let us own {BUS_NAME}: {error.message}. Is its policy file installed?"
            ) from None
        if not owned:
            raise StartError(f"Another mountnsd owns {BUS_NAME} already; stop it first.")
        service.entering.recover()
        notice = Notice(self._registry)
        watching = stall.watch(self._bus, service.called)
        chores = [asyncio.ensure_future(chore) for chore in (_keep_alive(), watching)]
        self._idling = asyncio.ensure_future(self._until_idle())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        holder = self._registry.holder.path
        _tell_systemd(f"READY=1\nSTATUS=Keeping namespaces in {holder}")
        logger.info(
            "mountnsd %s keeps %d namespaces in %s", mountnsd.__version__, len(self._registry), holder
        )
        try:
            await asyncio.wait((stop, self._bus.ended, self._idle), return_when=asyncio.FIRST_COMPLETED)
            if self._bus.ended.done() and not stop.done():
                logger.error("The connection to the bus has ended: %s", self._bus.ended.result())
                return 1
            _tell_systemd("STOPPING=1")
            if not stop.done():  # idle: let go of the name first, so that later calls start us again
                await self._bus.release_name(BUS_NAME)
            return 0
        finally:
            self._idling.cancel()
            for chore in chores:
                chore.cancel()
            notice.close()
            await service.close()
            await self._bus.drain()

    def _reload(self) -> None:
        """Read the configuration again; one that cannot be used changes nothing."""
        _tell_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._configured = config.load(self._chosen.config_directory)
        except config.ConfigError as error:
            logger.error("The configuration stays as it was: %s", error)
        else:
            self._registry.limits = _limits(self._configured)
            self._service.limits_changed()
            self._idling.cancel()
            self._idling = asyncio.ensure_future(self._until_idle())
            logger.info("The configuration was read again")
        _tell_systemd("READY=1")

    async def _until_idle(self) -> None:
        """Wait until nothing was asked, and nothing that we started has run, for as long as is configured."""
        seconds = self._configured.idle_timeout_sec
        if not seconds:
            return
        while True:
            left = self._service.last_call + seconds - asyncio.get_running_loop().time()
            if left <= 0 and not self._service.busy:
                self._idle.set_result(None)
                return
            await asyncio.sleep(max(left, 1.0))


async def _own_name(bus: Bus) -> bool:
    """Own the daemon's name.  Returns: whether we do.  Raises: CallError, Disconnected.

    A bus that took nothing more from an earlier daemon (stall.py) does not see that this has ended before it passes
    something on to it.
    """
    if await bus.request_name(BUS_NAME):
        return True
    with suppress(CallError):
        await bus.call(BUS_NAME, names.ROOT_PATH, PEER, "Ping", timeout=_EARLIER_DAEMON)
    return await bus.request_name(BUS_NAME)


async def _keep_alive() -> None:
    """Tell systemd's watchdog, if we have one, that the event loop turns; sd_watchdog_enabled(3)."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        _tell_systemd("WATCHDOG=1")
        await asyncio.sleep(int(usec) / 2_000_000)


def _tell_systemd(state: str) -> None:
    try:
        systemd.notify(state)
    except OSError as error:  # nobody listens: no reason to fail, and at the end no loss
        level = logging.WARNING if state.startswith("READY") else logging.DEBUG
        logger.log(level, "systemd could not be told our state: %s", error.strerror)


def _set(stop: asyncio.Future[str], name: str) -> None:
    if not stop.done():
        stop.set_result(name)


def _check_mount_namespace(allowed: bool) -> None:
    """Raises StartError outside PID 1's mount namespace: old pins are not seen there, nor new ones elsewhere."""
    if _in_first_namespace():
        return
    if not allowed:
        raise StartError(
            "Not in PID 1's mount namespace: pins made here would be seen by nobody else. Take options such as "
            "PrivateTmp= and ProtectSystem= out of the unit, or pass --allow-foreign-namespace in a test."
        )
    logger.warning("Not in PID 1's mount namespace, as allowed: the pins are seen in this one only")


def _in_first_namespace() -> bool:
    own = Path("/proc/self/ns/mnt").stat().st_ino
    try:
        return own == Path("/proc/1/ns/mnt").stat().st_ino
    except PermissionError:
        # PID 1 may be out of reach even for root; but the kernel's first mount namespace has a fixed number.
        return own == _INITIAL_INODE


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mountnsd",
        description="Keep mount namespaces alive under a name.",
        # To ask how wide the terminal is would load shutil with all its compressors, at each start.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),
    )
    parser.add_argument("--version", action="version", version=f"mountnsd {mountnsd.__version__}")
    parser.add_argument(
        "--runtime-directory",
        type=Path,
        default=RUNTIME_DIRECTORY,
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--config-directory", type=Path, default=config.DIRECTORY, metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--vendor-directory", type=Path, default=VENDOR_DIRECTORY, metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--log-target", choices=("auto", "journal", "stderr"), default="auto", help="default: %(default)s"
    )
    parser.add_argument(
        "--launcher",
        choices=("auto", "systemd", "fork"),
        default="auto",
        help="who starts what is entered: systemd, in units, or the daemon itself (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-foreign-namespace",
        action="store_true",
        help="run in another mount namespace than PID 1's (for tests and containers)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Serve as the command line says.  Returns the exit status: 0 stopped or idle, 1 failed."""
    chosen = _parse(sys.argv[1:] if arguments is None else arguments)
    log.set_up(chosen.log_target)
    os.umask(0o022)
    garbage.take_over()
    sys.setswitchinterval(_SWITCH_SEC)
    room.take_all()  # what runs inside gets the usual soft limit back
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or stream.DEFAULT_ADDRESS
    try:
        if os.geteuid() != 0:
            raise StartError("mountnsd needs root: start it with 'systemctl start mountnsd' or sudo.")
        _check_mount_namespace(chosen.allow_foreign_namespace)
        settings = Settings(
            chosen.runtime_directory,
            chosen.config_directory,
            chosen.vendor_directory,
            chosen.launcher,
            address,
        )
        return asyncio.run(run(settings))
    except (StartError, config.ConfigError, Error, OSError) as error:
        logger.error("%s", error)
        return 1


def program() -> NoReturn:
    """`main`, and end with its status at once.

    The interpreter is not taken down: threads of ours may be inside, waiting for a filesystem, and whatever these did
    while it is, they would do as root and there.
    """
    try:
        status = main()
    except Exception:
        logger.exception("A fault")
        status = 1
    logging.shutdown()
    os._exit(status)
