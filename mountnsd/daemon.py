# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon: start, ready, notice, idle, stop.

It keeps nothing that a kill could lose: what it knows is in the holder and in
the metadata, and a start is a recovery.
"""

import argparse
import asyncio
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import mountnsd
from mountnsd import config, declaration, log, stream
from mountnsd.bus import Bus, CallError, Disconnected
from mountnsd.errors import Error
from mountnsd.holder import Holder
from mountnsd.metadata import MetadataStore
from mountnsd.registry import Limits, Registry
from mountnsd.service import BUS_NAME, Service
from systemd import daemon as systemd

logger = logging.getLogger(__name__)

RUNTIME_DIRECTORY = Path("/run/mountnsd")
VENDOR_DIRECTORY = Path("/usr/lib/mountnsd")
_INITIAL_INODE = 0xEFFFFFF8  # MNT_NS_INIT_INO, include/uapi/linux/nsfs.h
_NOTICE_DELAY = 0.1  # seconds, at least, between a change of the mounts and our looking


class StartError(Exception):
    """Why the daemon does not start, and what to do."""


class Notice:
    """Looks again when the host's mounts have changed: soon, but never for more than a tenth of the time."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        # /proc/self/mountinfo is always readable; what tells of a change is POLLPRI, which asyncio has not got.
        self._epoll = select.epoll()
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll.register(self._mountinfo, select.EPOLLPRI)
        self._delay = _NOTICE_DELAY
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._changed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._mountinfo)

    def _changed(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._timer = self._loop.call_later(self._delay, self._look)

    def _look(self) -> None:
        self._epoll.poll(0)
        self._loop.add_reader(self._epoll.fileno(), self._changed)
        start = self._loop.time()
        try:
            self._registry.refresh()
        except (Error, OSError) as error:
            logger.error("The holder cannot be looked at: %s", error)
        self._delay = max(_NOTICE_DELAY, 10 * (self._loop.time() - start))


async def run(
    settings: config.Config, runtime_directory: Path, address: str, declared: Sequence[Path] = ()
) -> int:
    """Serve until told to stop.  Returns the exit status.

    Arguments: declared: the directories in which namespaces are declared.
    Raises: StartError, errors.Error, OSError.
    """
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _set, stop, number.name)
    holder = Holder.ensure(str(runtime_directory))
    limits = Limits(settings.max_namespaces, settings.max_namespaces_per_user)
    registry = Registry(holder, MetadataStore(holder.runtime_directory), limits)
    try:
        registry.recover()
        bus = await Bus.connect(address)
        try:
            return await _serve(bus, registry, settings, stop, declared)
        finally:
            bus.close()
    except stream.ConnectError as error:
        raise StartError(f"{error}. Start the bus, or set DBUS_SYSTEM_BUS_ADDRESS.") from None
    except Disconnected as error:
        raise StartError(f"The bus ended the connection: {error}.") from None
    except CallError as error:
        raise StartError(f"The bus at {address} does not answer as a bus does: {error}.") from None
    finally:
        registry.close()


async def _serve(
    bus: Bus,
    registry: Registry,
    settings: config.Config,
    stop: asyncio.Future[str],
    declared: Sequence[Path],
) -> int:
    service = Service(bus, registry, declared)
    service.start()
    try:
        owned = await bus.request_name(BUS_NAME)
    except CallError as error:
        raise StartError(
            f"The bus does not let us own {BUS_NAME}: {error.message}. Is its policy file installed?"
        ) from None
    if not owned:
        raise StartError(f"Another mountnsd owns {BUS_NAME} already; stop it first.")
    notice = Notice(registry)
    idle = asyncio.ensure_future(_until_idle(service, settings.idle_timeout_sec))
    _tell_systemd(f"READY=1\nSTATUS=Keeping namespaces in {registry.holder.path}")
    logger.info(
        "mountnsd %s keeps %d namespaces in %s", mountnsd.__version__, len(registry), registry.holder.path
    )
    try:
        await asyncio.wait((stop, bus.ended, idle), return_when=asyncio.FIRST_COMPLETED)
        if bus.ended.done() and not stop.done():
            logger.error("The connection to the bus has ended: %s", bus.ended.result())
            return 1
        _tell_systemd("STOPPING=1")
        if not stop.done():  # idle: let go of the name first, so that later calls start us again
            await bus.release_name(BUS_NAME)
        return 0
    finally:
        idle.cancel()
        notice.close()
        await service.close()
        await bus.drain()


async def _until_idle(service: Service, seconds: int) -> None:
    """Wait until nothing was asked, and nothing that we started has run, for so many seconds; 0: for ever."""
    if not seconds:
        await asyncio.get_running_loop().create_future()
    while True:
        left = service.last_call + seconds - asyncio.get_running_loop().time()
        if left <= 0 and not service.busy:
            return
        await asyncio.sleep(max(left, 1.0))


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
    parser = argparse.ArgumentParser(prog="mountnsd", description="Keep mount namespaces alive under a name.")
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
        "--allow-foreign-namespace",
        action="store_true",
        help="run in another mount namespace than PID 1's (for tests and containers)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The entry point.  Returns the exit status: 0 stopped or idle, 1 failed."""
    chosen = _parse(sys.argv[1:] if arguments is None else arguments)
    log.set_up(chosen.log_target)
    os.umask(0o022)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # what runs inside gets the usual soft limit back
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or stream.DEFAULT_ADDRESS
    try:
        if os.geteuid() != 0:
            raise StartError("mountnsd needs root: start it with 'systemctl start mountnsd' or sudo.")
        _check_mount_namespace(chosen.allow_foreign_namespace)
        settings = config.load(chosen.config_directory)
        places = (chosen.config_directory, chosen.vendor_directory)
        declared = [place / declaration.DIRECTORY for place in places]
        return asyncio.run(run(settings, chosen.runtime_directory, address, declared))
    except (StartError, config.ConfigError, Error, OSError) as error:
        logger.error("%s", error)
        return 1
