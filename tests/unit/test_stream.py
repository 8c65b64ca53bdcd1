# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is sent arrives whole and in order, however little the socket takes at once."""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw import Field, call_fields, frame

from mountnsd import disposal
from mountnsd import stream as stream_module
from mountnsd.frames import Frame
from mountnsd.stream import Stream

MESSAGES = st.lists(st.tuples(st.sampled_from([1, 7, 300, 9_000, 70_000]), st.integers(0, 2)), max_size=150)


async def sent(messages: Sequence[tuple[bytes, int]], reads: int) -> tuple[bytes, int, int]:
    """Send messages, each with so many descriptors.

    Arguments: reads: how much is read at once.
    Returns: the bytes and the number of descriptors that arrived, and how many calls of sendmsg(2) they took.
    """
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setblocking(False)
    ended: list[str] = []
    stream = Stream(ours, lambda frame: frame.fds.close(), ended.append)
    stream.start()
    calls = 0
    written = stream._written

    def counted(count: int) -> None:
        nonlocal calls
        calls += 1
        written(count)

    stream._written = counted  # type: ignore[method-assign]
    for data, fds in messages:
        stream.send(data, [os.open("/dev/null", os.O_RDONLY) for _ in range(fds)])
    found, descriptors = b"", 0
    wanted = sum(len(data) for data, _ in messages)
    while len(found) < wanted and not ended:
        await asyncio.sleep(0)
        try:
            data, fds_in, _, _ = socket.recv_fds(theirs, reads, 253)
        except BlockingIOError:
            continue
        found += data
        descriptors += len(fds_in)
        for fd in fds_in:
            os.close(fd)
    assert not ended
    assert stream._queued == 0
    stream.close()
    theirs.close()
    return found, descriptors, calls


@settings(max_examples=40, deadline=None)
@given(MESSAGES, st.sampled_from([999, 1 << 16]))
def test_in_order_and_whole(shapes: list[tuple[int, int]], reads: int) -> None:
    messages = [(bytes([number % 251]) * size, fds) for number, (size, fds) in enumerate(shapes)]
    before = len(os.listdir("/proc/self/fd"))
    found, descriptors, _ = asyncio.run(sent(messages, reads))
    assert found == b"".join(data for data, _ in messages)
    assert descriptors == sum(fds for _, fds in messages)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_flushed_is_written_at_once() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        stream = Stream(ours, lambda frame: frame.fds.close(), lambda _: None)
        stream.start()
        stream.flush()  # nothing
        stream.send(b"one")
        stream.send(b"two")
        stream.flush()
        assert theirs.recv(10, socket.MSG_DONTWAIT) == b"onetwo"
        stream.send(b"three")
        await asyncio.sleep(0)
        assert theirs.recv(10, socket.MSG_DONTWAIT) == b"three"
        stream.close()
        stream.flush()
        theirs.close()

    asyncio.run(story())


@pytest.mark.parametrize("count", [1, 64, 256])
def test_many_small_ones_are_few_system_calls(count: int) -> None:
    found, _, calls = asyncio.run(sent([(b"x" * 8, 0)] * count, 1 << 16))
    assert len(found) == 8 * count
    assert calls <= -(-count // 64) + 1


def test_a_flood_of_descriptors_leaves_time_to_their_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """But closings that hang do not end the reading."""
    message = frame(call_fields("/", None, "Ping", extra=[Field(7, "s", ":1.1")]))

    async def story() -> float:
        ours, theirs = socket.socketpair()
        taken: list[Frame] = []
        stream = Stream(ours, taken.append, lambda _: None)
        stream.start()
        monkeypatch.setattr(disposal, "waiting", lambda: 1_000_000)
        start = asyncio.get_running_loop().time()
        for number in range(5):
            theirs.send(message)
            while len(taken) == number:
                await asyncio.sleep(0)
        stream.close()
        theirs.close()
        return asyncio.get_running_loop().time() - start

    assert asyncio.run(asyncio.wait_for(story(), 20)) >= 4 * 0.002


def test_who_is_not_written_to_is_not_read_from() -> None:
    """A bus that takes nothing for a while cannot have us gather answers without end; nothing is lost by that."""
    message = frame(call_fields("/", None, "Ping", extra=[Field(7, "s", ":1.1")]))
    answer = bytes(1000)
    count = 20_000

    async def story() -> tuple[int, int]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        taken, most = 0, 0

        def take(_: Frame) -> None:
            nonlocal taken, most
            taken += 1
            stream.send(answer)
            most = max(most, len(stream._queue))

        stream = Stream(ours, take, lambda _: None)
        stream.start()
        calls, answers = memoryview(message * count), 0
        while answers < count * len(answer):
            with suppress(BlockingIOError):  # of no bytes more, this sends nothing
                calls = calls[theirs.send(calls) :]
            if most > stream_module.MANY_TO_WRITE:  # until then nothing is read
                with suppress(BlockingIOError):
                    answers += len(theirs.recv(1 << 20))
            await asyncio.sleep(0)
        stream.close()
        theirs.close()
        return taken, most

    taken, most = asyncio.run(asyncio.wait_for(story(), 20))
    assert taken == count
    assert most < stream_module.MANY_TO_WRITE + stream_module._READ_SIZE // len(message) + 1
