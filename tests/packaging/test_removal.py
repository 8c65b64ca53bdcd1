# SPDX-License-Identifier: LGPL-2.1-or-later
"""Removal keeps what was created, and says so; a purge ends it.  In a mount namespace with its own /run and /etc."""

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.ground import call, contained, forked, run
from support.holding import mounted_at, pinned

from mountnsd import mountinfo
from mountnsd.holder import Holder

POSTRM = Path(__file__).resolve().parents[2] / "packaging/debian/mountnsd.postrm"
RUNTIME = Path("/run/mountnsd")
_CLONE_NEWPID = 0x20000000


def apart(work: Callable[[], None], *, shared: bool = True) -> None:
    """Do the work in a container in which no process of this machine can be seen, since the script ends processes."""

    def first() -> None:
        run("mount", "--types", "proc", "proc", "/proc")
        work()

    def body() -> None:
        call(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWPID))
        forked(first)

    contained(body, shared=shared)


def system() -> None:
    """Give this mount namespace a /run and an /etc of its own, as a system without systemd has them."""
    for path in ("/run", "/etc"):
        run("mount", "--types", "tmpfs", "tmpfs", path)
    RUNTIME.mkdir()
    Path("/etc/mountnsd/namespaces").mkdir(parents=True)
    Path("/etc/mountnsd/namespaces/mine.toml").write_text("")
    wants = Path("/etc/systemd/system/multi-user.target.wants")
    wants.mkdir(parents=True)
    for name, unit in (("mountns@a.service", "mountns@.service"), ("other@a.service", "other@.service")):
        (wants / name).symlink_to(f"/usr/lib/systemd/system/{unit}")


def postrm(action: str, *wrapper: str) -> str:
    """Run the script as dpkg does, on removal; gives what it says."""
    result = subprocess.run(
        [*wrapper, "sh", str(POSTRM), action],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@contextmanager
def inside(
    name: str, script: str = "exec sleep 100", way: Sequence[str] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """A process in a pinned namespace that has begun.  Arguments: way: to the holder."""
    command = [*way, "nsenter", f"--mount={RUNTIME}/ns/{name}", "sh", "-c", f"echo; {script}"]
    with running(*command) as process:
        assert process.stdout
        assert process.stdout.readline() == "\n"
        yield process


@contextmanager
def running(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that is ended at the end."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def nothing_is_left() -> None:
    """No mount, file or link of mountnsd's."""
    assert not [mount for mount in mountinfo.parse(mountinfo.read()) if mount.target.startswith(str(RUNTIME))]
    assert not RUNTIME.exists()
    assert not Path("/etc/mountnsd").exists()
    assert os.listdir("/etc/systemd/system/multi-user.target.wants") == ["other@a.service"]


@pytest.mark.parametrize("shared", [True, False])
def test_removed_and_purged(*, shared: bool) -> None:
    def story() -> None:
        system()
        if shared:
            run("mount", "--make-rshared", "/run")
        with closing(Holder.ensure(str(RUNTIME))) as holder:
            for name in ("b", "a"):
                pinned(holder, name)
        (RUNTIME / "meta").mkdir()
        (RUNTIME / "meta/a.json").write_text("{}")
        with inside("a") as process, running("sleep", "100") as bystander:
            assert postrm("remove").splitlines() == [
                "These namespaces stay until the next boot, or until mountnsd is purged:",
                "  a",
                "  b",
            ]
            assert process.poll() is None
            assert len(mounted_at(RUNTIME / "ns/a")) == 1

            assert postrm("purge") == ""
            assert process.wait(5) == -15
            assert bystander.poll() is None
        nothing_is_left()
        assert postrm("purge") == ""
        nothing_is_left()

    apart(story, shared=shared)


def test_a_hidden_holder() -> None:
    """Its pins are told of, and who is inside is ended, as with a visible one."""

    def story() -> None:
        system()
        with closing(Holder.ensure(str(RUNTIME), hide=True)) as holder:
            for name in ("b", "a"):
                pinned(holder, name)
        with inside("a", way=("nsenter", f"--mount={RUNTIME}/ns/.anchor")) as process:
            assert postrm("remove").splitlines()[1:] == ["  a", "  b"]
            assert process.poll() is None
            assert len(mounted_at(RUNTIME / "ns/.anchor")) == 1
            assert postrm("purge") == ""
            assert process.wait(5) == -15
        nothing_is_left()

    apart(story)


def test_who_does_not_listen_is_killed() -> None:
    def story() -> None:
        system()
        with closing(Holder.ensure(str(RUNTIME))) as holder:
            pinned(holder, "a")
        with inside("a", "trap '' TERM; while :; do sleep 1; done") as process:
            postrm("purge")
            assert process.wait(5) == -9
        nothing_is_left()

    apart(story)


def test_bystanders() -> None:
    """Neither who ended and was not waited for, nor who may not be looked at, is taken for one inside."""

    def story() -> None:
        system()
        with closing(Holder.ensure(str(RUNTIME))) as holder:
            pinned(holder, "a")
        with running("true") as ended, running("sleep", "100") as hidden:
            assert ended.stdout
            assert ended.stdout.read() == ""
            blind = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
            link = f"/proc/{hidden.pid}/ns/mnt"
            assert (
                subprocess.run([*blind, "readlink", link], capture_output=True, check=False).returncode == 1
            )
            begun = time.monotonic()
            postrm("purge", *blind)
            assert time.monotonic() - begun < 5
            assert hidden.poll() is None
        nothing_is_left()

    apart(story)


def test_pins_that_something_covers() -> None:
    """A mount over a pin, over the holder and over the whole directory: all of it goes."""

    def story() -> None:
        system()
        with closing(Holder.ensure(str(RUNTIME))) as holder:
            pinned(holder, "a")
        for path in (RUNTIME / "ns/a", RUNTIME / "ns", RUNTIME):
            run(
                "mount",
                "--bind",
                "/etc/mountnsd/namespaces/mine.toml" if path.is_file() else "/etc/mountnsd",
                path,
            )
        postrm("purge")
        nothing_is_left()

    apart(story)


def test_others_files_are_not_touched() -> None:
    """What is mounted into the directory is unmounted, and not emptied."""

    def story() -> None:
        system()
        Path("/etc/else").mkdir()
        Path("/etc/else/file").write_text("kept")
        (RUNTIME / "there").mkdir()
        run("mount", "--bind", "/etc/else", RUNTIME / "there")
        postrm("purge")
        nothing_is_left()
        assert Path("/etc/else/file").read_text() == "kept"

    apart(story)


def test_nothing_was_ever_created() -> None:
    """A purge on a machine where the daemon never ran, and one where there is not even a directory."""

    def story() -> None:
        system()
        assert postrm("remove") == ""
        assert postrm("purge") == ""
        nothing_is_left()

    apart(story)


def test_many() -> None:
    """The message does not fill the screen."""

    def story() -> None:
        system()
        with closing(Holder.ensure(str(RUNTIME))) as holder:
            for number in range(200):
                pinned(holder, f"n{number:03}")
        said = postrm("remove").splitlines()
        assert len(said) == 22
        assert said[-1] == "  and 180 more"
        postrm("purge")
        nothing_is_left()

    apart(story)


@pytest.mark.parametrize("bound", [True, False])
def test_in_a_chroot(directory: Path, *, bound: bool) -> None:
    """With the /run of the running system bound into it, what is there is not the chroot's to end."""

    def story() -> None:
        system()
        with closing(Holder.ensure(str(RUNTIME))) as holder:
            pinned(holder, "a")
        (RUNTIME / "meta").mkdir()
        root = directory / "root"
        root.mkdir()
        run("mount", "--types", "tmpfs", "tmpfs", root)
        for name in ("bin", "lib", "lib64", "sbin", "usr"):
            if Path("/", name).is_symlink():
                (root / name).symlink_to(os.readlink(f"/{name}"))
            elif Path("/", name).is_dir():
                (root / name).mkdir()
                run("mount", "--rbind", f"/{name}", root / name)
        (root / "etc/mountnsd").mkdir(parents=True)
        (root / "proc").mkdir()
        (root / "run").mkdir()
        (root / "postrm").write_bytes(POSTRM.read_bytes())
        if bound:
            run("mount", "--rbind", "/run", root / "run")
        else:
            (root / "run/mountnsd/meta").mkdir(parents=True)
        run("mount", "--bind", "/proc", root / "proc")
        run("chroot", root, "sh", "/postrm", "purge")
        assert not (root / "etc/mountnsd").exists()
        assert (root / "run/mountnsd").exists() == bound
        assert len(mounted_at(RUNTIME / "ns/a")) == 1
        assert (RUNTIME / "meta").exists()

    apart(story, shared=False)
