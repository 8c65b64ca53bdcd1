# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process is inside also where its main thread has ended, or is elsewhere."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.contract import wait_until
from support.ground import Ground, resident

from mountnsd import namespace, processes
from mountnsd.errors import NamespaceBusy
from mountnsd.named import Namespace
from mountnsd.options import CreateOptions, DestroyOptions

# The main thread ends, and the other goes on.
HEADLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
# A thread goes inside, and the main thread stays outside.
DIVIDED = """
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
def inside():
    fd = os.open(sys.argv[1], os.O_RDONLY)
    assert libc.unshare(0x200) == 0 and libc.setns(fd, 0x20000) == 0
    os.close(fd)
    print("ready", flush=True)
    time.sleep(300)
threading.Thread(target=inside).start()
"""


@pytest.fixture
def ground(directory: Path) -> Iterator[Ground]:
    with Ground(directory) as made:
        yield made


@pytest.fixture
def found(ground: Ground) -> Namespace:
    return asyncio.run(ground.registry.create("x", 0, CreateOptions()))[0]


@pytest.fixture
def headless(found: Namespace) -> Iterator[int]:
    """The pid of a process inside whose main thread has ended."""
    with resident(found.path, [sys.executable, "-c", HEADLESS], ready=True) as pid:
        wait_until(lambda: "(zombie)" in Path(f"/proc/{pid}/status").read_text())
        yield pid


@pytest.fixture
def divided(found: Namespace) -> Iterator[int]:
    """The pid of a process of which a thread is inside."""
    with resident("/proc/self/ns/mnt", [sys.executable, "-c", DIVIDED, found.path], ready=True) as pid:
        yield pid


def seen(ground: Ground, found: Namespace) -> list[int]:
    """The processes that are said to be inside."""
    assert processes.count()[found.inode] == len(ground.registry.processes(found))
    return [process.pid for process in ground.registry.processes(found)]


def destroy(ground: Ground, found: Namespace, **options: bool) -> list[int]:
    """Destroy it; the processes that were inside."""
    return asyncio.run(ground.registry.destroy(found, DestroyOptions(**options)))


def test_one_whose_main_thread_has_ended(ground: Ground, found: Namespace, headless: int) -> None:
    assert seen(ground, found) == [headless]
    assert processes.namespace_of_living(headless) == found.inode
    with pytest.raises(NamespaceBusy, match=str(headless)):
        destroy(ground, found)
    assert destroy(ground, found, kill=True) == [headless]
    assert processes.inside(found.inode, threads=True) == []


def test_one_whose_main_thread_is_outside(ground: Ground, found: Namespace, divided: int) -> None:
    assert seen(ground, found) == []
    with pytest.raises(NamespaceBusy, match=str(divided)):
        destroy(ground, found)
    assert destroy(ground, found, kill=True) == [divided]
    assert processes.inside(found.inode, threads=True) == []


def test_our_own_helpers_are_nobody(ground: Ground, found: Namespace) -> None:
    """A look inside that is under way keeps no namespace busy."""

    async def story() -> None:
        registry = ground.registry
        inside: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop, release = asyncio.get_running_loop(), threading.Event()

        def look(fd: int) -> None:
            namespace.join(fd)
            loop.call_soon_threadsafe(inside.set_result, None)
            release.wait(60)

        looking = asyncio.ensure_future(registry._inside(found, look))
        await inside
        try:
            assert await registry.destroy(found, DestroyOptions()) == []
        finally:
            release.set()
            await looking

    asyncio.run(story())
