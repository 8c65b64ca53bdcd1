# SPDX-License-Identifier: LGPL-2.1-or-later
"""Destroying a namespace with somebody inside: refused, killed, or dropped all the same."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.ground import Ground, fd_count, resident

from mountnsd import processes
from mountnsd.errors import NamespaceBusy
from mountnsd.named import Namespace
from mountnsd.options import CreateOptions, DestroyOptions
from mountnsd.registry import Registry

HARD = DestroyOptions(kill=True)
LAZY = DestroyOptions(lazy=True)
PLAIN = DestroyOptions()


@pytest.fixture
def ground(directory: Path) -> Iterator[Ground]:
    """A registry in a runtime directory of its own, which leaves no descriptor open."""
    before = fd_count()
    with Ground(directory) as made:
        yield made
    assert fd_count() == before


def tell(ground: Ground, story: Callable[[Registry], Coroutine[Any, Any, None]]) -> None:
    """Let a story happen, within a minute."""
    asyncio.run(asyncio.wait_for(story(ground.registry), 60))


async def new(registry: Registry, name: str) -> Namespace:
    """Make a namespace."""
    return (await registry.create(name, 0, CreateOptions()))[0]


def names_of(registry: Registry) -> list[str]:
    """The names there are."""
    return [found.name for found in registry.all()]


# Ignores SIGTERM.
STUBBORN = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
# On SIGTERM leaves a child behind that does the same, and ends.
FORKING = [
    "sh",
    "-c",
    "trap \"sh -c 'exec sleep 60' & exit 0\" TERM; echo ready; while :; do sleep 0.05; done",
]


class TestBusy:
    """Somebody is inside."""

    def test_refused_with_who(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            with resident(made.path) as pid:
                assert [(found.pid, found.uid) for found in registry.processes(made)] == [(pid, 0)]
                with pytest.raises(NamespaceBusy) as refusal:
                    await registry.destroy(made, PLAIN)
                assert f"{pid} (sleep)" in refusal.value.message
                assert "kill" in refusal.value.message
                assert "lazy" in refusal.value.message
                assert names_of(registry) == ["a"]
            assert registry.processes(made) == []
            assert await registry.destroy(made, PLAIN) == []

        tell(ground, story)

    def test_a_command_cannot_forge_the_message(self, ground: Ground, directory: Path) -> None:
        program = directory / "x\n\x1b[2J"
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o755)

        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            with resident(made.path, [str(program), "60"]) as pid:
                assert registry.processes(made)[0].command == "x\n\x1b[2J"
                with pytest.raises(NamespaceBusy) as refusal:
                    await registry.destroy(made, PLAIN)
                assert refusal.value.message.isprintable()
                assert await registry.destroy(made, HARD) == [pid]

        tell(ground, story)

    def test_lazy_drops_the_name(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            with resident(made.path) as pid:
                assert await registry.destroy(made, LAZY) == [pid]
                assert names_of(registry) == []
                assert leaks.alive(pid)

        tell(ground, story)
        assert ground.lying() == (set(), set())

    def test_kill_ends_the_willing_at_once(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            with resident(made.path) as one, resident(made.path) as two:
                start = time.monotonic()
                assert await registry.destroy(made, HARD) == sorted([one, two])
                assert time.monotonic() - start < 2
                assert not leaks.alive(one)
                assert not leaks.alive(two)

        tell(ground, story)

    @pytest.mark.parametrize("command", [STUBBORN, FORKING], ids=["stubborn", "forking"])
    def test_kill_ends_the_unwilling(
        self, ground: Ground, command: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end = processes.end

        async def soon(inode: int) -> list[int]:
            return await end(inode, grace=0.3)

        monkeypatch.setattr(processes, "end", soon)

        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            process = subprocess.Popen(  # noqa: ASYNC220 - done before anything else happens
                ["nsenter", f"--mount={made.path}", "--", *command], stdout=subprocess.PIPE
            )
            with process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                assert process.pid in await registry.destroy(made, HARD)
                assert process.wait(10) == (-signal.SIGKILL if command is STUBBORN else 0)
            assert leaks.processes_in({made.inode}) == []

        tell(ground, story)
