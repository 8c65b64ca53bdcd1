# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holder and the bind that it lies on, by the kernel's word; namespaces pinned in it without a registry."""

import os
from collections.abc import Callable
from pathlib import Path

from mountnsd import helper, mountinfo
from mountnsd.holder import Holder, close_host
from mountnsd.mountinfo import Mount
from mountnsd.namespace import Propagation, make

from .ground import run


def new_namespace(holder: Holder, propagation: Propagation = Propagation.SLAVE) -> int:
    """A descriptor of a new mount namespace."""
    host = holder.host()
    try:
        return helper.run_blocking(lambda: make(host, propagation))
    finally:
        close_host(host)


def pinned(holder: Holder, name: str) -> int:
    """Pin a new namespace; gives its inode."""
    fd = new_namespace(holder)
    try:
        holder.pin(name, fd)
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def sixteen_at_once(work: Callable[[], object]) -> None:
    """Do the same in sixteen processes, which start together; it has to succeed in each."""
    reading, writing = os.pipe()
    children = []
    for _ in range(16):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(writing)
                os.read(reading, 1)  # all start at once, when the pipe is closed
                work()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    os.close(writing)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 16
    os.close(reading)


def mounted_at(path: Path | str) -> list[Mount]:
    """The mounts at a path, by the kernel's word, from the lowest."""
    return [mount for mount in mountinfo.parse(mountinfo.read()) if mount.target == str(path)]


def the_two(runtime: Path) -> tuple[Mount, Mount]:
    """The bind and the holder, which must be all that is mounted there, and neither of them travels."""
    base, holder = mounted_at(runtime / "ns")
    assert base.root.endswith("/run/ns")
    assert base.propagation == ()
    assert (holder.fstype, holder.source, holder.parent) == ("tmpfs", "mountnsd", base.id)
    assert holder.propagation == ("unbindable",)
    return base, holder


def mount_base(runtime: Path) -> None:
    """What a start that is killed in its middle leaves."""
    (runtime / "ns").mkdir(parents=True)
    (runtime / "ns").chmod(0o700)
    runtime.chmod(0o755)
    run("mount", "--bind", runtime / "ns", runtime / "ns")
