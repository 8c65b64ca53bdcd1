# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holder lies on a private bind of its directory: so nobody elsewhere sees it or takes it away."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support import leaks
from support.ground import contained, run
from support.holding import mount_base, mounted_at, new_namespace, pinned, the_two

from mountnsd import mountinfo
from mountnsd.errors import MountFailed
from mountnsd.holder import Holder, Pin
from mountnsd.namespace import Propagation


@pytest.fixture
def runtime(directory: Path) -> Path:
    """A runtime directory that is not there yet."""
    return directory / "run"


@contextmanager
def sandbox(propagation: str) -> Iterator[list[str]]:
    """A mount namespace that is there already, as a sandboxed service has it; gives a command's beginning.

    The command is of uid 0 without a capability, inside.
    """
    command = ["unshare", "--mount", "--propagation", propagation, "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
            yield ["nsenter", f"--mount=/proc/{process.pid}/ns/mnt", *drop]
        finally:
            process.kill()


def try_out(*command: str | Path) -> int:
    """Run a command that may fail; gives its status."""
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode


class TestWhereAllIsShared:
    """As under systemd."""

    @pytest.mark.parametrize("propagation", ["slave", "unchanged"])
    def test_nobody_else_sees_it(self, runtime: Path, propagation: str) -> None:
        """What removes a pin's file elsewhere takes away the pin, and needs no capability for it."""

        def story() -> None:
            runtime.mkdir()
            with sandbox(propagation) as capless, closing(Holder.ensure(str(runtime))) as holder:
                inode = pinned(holder, "a")
                inside = run(*capless, "findmnt", "--noheadings", "--output=SOURCE", runtime / "ns")
                assert inside.splitlines()[0].endswith("/run/ns]")
                assert len(inside.splitlines()) == 1
                assert run(*capless, "grep", "CapEff", "/proc/self/status").split()[1] == "0" * 16
                assert run(*capless, "ls", "-A", runtime / "ns") == ""
                assert try_out(*capless, "rm", runtime / "ns" / "a") == 1
                assert try_out(*capless, "rmdir", runtime / "ns") == 1
                assert try_out(*capless, "mv", runtime / "ns", runtime / "other") == 1
                run(*capless, "touch", runtime / "ns" / "a")
                run(*capless, "rm", runtime / "ns" / "a")
                the_two(runtime)
                assert holder.trouble() is None
                assert holder.survey().pins == (Pin("a", inode),)

        contained(story)

    def test_a_start_that_was_cut_short(self, runtime: Path) -> None:
        def story() -> None:
            mount_base(runtime)  # shared as yet
            with sandbox("slave") as capless:
                Holder.ensure(str(runtime)).close()
                the_two(runtime)
                inside = run(*capless, "findmnt", "--noheadings", "--output=SOURCE", runtime / "ns")
                assert [line.endswith("/run/ns]") for line in inside.splitlines()] == [True]

        contained(story)

    def test_detached_it_is_set_up_again_on_the_same_bind(self, runtime: Path) -> None:
        def story() -> None:
            with closing(Holder.ensure(str(runtime))) as holder:
                pinned(holder, "a")
                base, old = the_two(runtime)
                run("umount", "--lazy", runtime / "ns")
                assert holder.trouble() == "unmounted"
                with closing(Holder.ensure(str(runtime))) as again:
                    assert the_two(runtime)[0] == base
                    assert the_two(runtime)[1].device != old.device
                    pinned(again, "a")
                while leaks.mounts_below(runtime / "ns"):
                    run("umount", "--lazy", runtime / "ns")
                Holder.ensure(str(runtime)).close()
                the_two(runtime)

        contained(story)

    def test_one_that_lies_on_no_bind_is_kept(self, runtime: Path) -> None:
        def story() -> None:
            (runtime / "ns").mkdir(parents=True)
            runtime.chmod(0o755)
            run("mount", "-t", "tmpfs", "-o", "mode=0700", "mountnsd", runtime / "ns")
            with closing(Holder.ensure(str(runtime))) as holder:
                inode = pinned(holder, "a")
                with closing(Holder.ensure(str(runtime))) as again:
                    assert again.survey().pins == (Pin("a", inode),)
                for propagation in (Propagation.SHARED, Propagation.UNCHANGED):
                    with pytest.raises(MountFailed, match="findmnt") as refusal:
                        new_namespace(holder, propagation)
                    assert refusal.value.errno == errno.EBUSY
                os.close(new_namespace(holder, Propagation.PRIVATE))
                assert holder.trouble() is None
                assert holder.survey().pins == (Pin("a", inode),)
                (mount,) = mounted_at(runtime / "ns")
                around = next(m for m in mountinfo.parse(mountinfo.read()) if m.id == mount.parent)
                assert around.peer_group

        contained(story)

    def test_one_that_somebody_made_shared_stays(self, runtime: Path) -> None:
        def story() -> None:
            with closing(Holder.ensure(str(runtime))) as holder:
                inode = pinned(holder, "a")
                run("mount", "--make-rshared", "/")
                for propagation in (Propagation.SHARED, Propagation.UNCHANGED):
                    with pytest.raises(MountFailed, match="findmnt"):
                        new_namespace(holder, propagation)
                for propagation in (Propagation.SLAVE, Propagation.PRIVATE):
                    os.close(new_namespace(holder, propagation))
                assert holder.survey().pins == (Pin("a", inode),)

        contained(story)
