# SPDX-License-Identifier: LGPL-2.1-or-later
"""Short-lived helper threads, for kernel work that must not happen in the daemon's one thread.

A thread that has left the host's mount namespace can do no other work ever
after, so each function gets a thread of its own that ends with it: there is
no pool.  Out of scope: what the work is.

Sources: pthread_exit(3); PyEval_RestoreThread() in CPython's documentation.
"""

import _thread
import asyncio
import errno
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from weakref import WeakKeyDictionary

from mountnsd import syscalls
from mountnsd.errors import Failed

# A thread that comes back from the kernel while the interpreter ends is ended by pthread_exit(3).  When that is
# first called it loads a library: from the namespace that the thread is in, as root.
syscalls.load_unwinder()

T = TypeVar("T")

_MOST_AT_ONCE = 8
_Slots = defaultdict[str, asyncio.Semaphore]
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Slots] = WeakKeyDictionary()


def run_blocking(function: Callable[[], T]) -> T:
    """Run `function` in a thread of its own and wait for it.

    Raises: what it raises; OSError EAGAIN where there is no room for another thread.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    running = _thread.allocate_lock()

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)
        running.release()

    running.acquire()
    try:
        # Not by threading.Thread, whose start waits for the thread to say that it runs.
        _thread.start_new_thread(body, ())
    except RuntimeError:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    running.acquire()
    if errors:
        raise errors[0]
    return results[0]


async def run(
    function: Callable[[], T],
    discard: Callable[[T], object] | None = None,
    always: Callable[[], object] | None = None,
    lane: str = "kernel",
) -> T:
    """Run `function` in a thread of its own, at most eight of a lane at once.

    Arguments: function: the work; discard: called with a result that nobody waits for any more, because
        the task was cancelled: closes what the result holds open; always: called once when the function
        does not run any more, or never will: closes what it works on; lane: what may be slow together.
        `discard` and `always` are called in the event loop.
    Raises: what the function raises.
    """
    loop = asyncio.get_running_loop()
    lanes = _loops.get(loop)
    if lanes is None:
        lanes = _loops[loop] = defaultdict(lambda: asyncio.Semaphore(_MOST_AT_ONCE))
    slots = lanes[lane]
    try:
        await slots.acquire()
    except asyncio.CancelledError:
        if always is not None:
            always()
        raise
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        slots.release()
        if always is not None:
            always()
        if future.cancelled():
            if error is None and discard is not None:
                discard(result)  # type: ignore[arg-type]
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised again in the event loop
            failure = error
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, result, failure)

    try:
        _thread.start_new_thread(body, ())
    except RuntimeError:
        settle(None, Failed("The system has no room for another thread just now; try again later."))
    return await future
