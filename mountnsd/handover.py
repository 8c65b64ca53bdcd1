# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan (child.py) on its way to a process that is no child of ours, over a stream socket.

First the length of what follows, in eight bytes, and with them the descriptors; then the plan's values.

On the way of every process that is started: it imports nothing that costs time.
"""

from __future__ import annotations

import errno
import marshal
import sys

from mountnsd import passing
from mountnsd.bare import os, socket
from mountnsd.child import Plan

_HEADER = 8
_MAX_SIZE = 4 << 20
# Both ends are of one version, but for the moment of an upgrade: then nothing may be misread.
_FORMAT = 2


def pack(plan: Plan, kept: tuple[int, ...] = ()) -> tuple[bytes, bytes, list[int]]:
    """The header, the values, and the descriptors (borrowed) that travel with the header.

    Arguments: kept: numbers that the receiving process shall leave as they are.
    """
    fds = [plan.namespace, plan.channel, *plan.fds.values()]
    if plan.parcel is not None:
        fds.append(plan.parcel.fileno())
    values = (
        _FORMAT,
        tuple(plan.fds),
        tuple(kept),
        plan.parcel is not None,
        plan.parcel_size,
        dict(plan.handles),
        plan.uid,
        plan.gid,
        tuple(plan.groups),
        plan.tty,
        plan.no_new_privs,
        tuple(plan.directories),
        plan.directory_needed,
        tuple(plan.programs),
        list(plan.argv),
        dict(plan.env),
    )
    data = marshal.dumps(values)
    return len(data).to_bytes(_HEADER, "little"), data, fds


def send_header(sock: socket.socket, header: bytes, fds: list[int]) -> None:
    """Send the header with the descriptors.  Raises OSError."""
    rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    sock.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive(sock: socket.socket) -> Plan:
    """Take a plan over; waits for it.

    Raises: OSError: EPIPE where nobody sends one any more, EPROTO where it is of another version, EMFILE where the
        descriptors found no room.
    """
    header, fds, truncated = passing.receive(sock, _HEADER, socket.MSG_WAITALL)
    if len(header) < _HEADER:
        raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
    size = int.from_bytes(header, "little")
    if size > _MAX_SIZE:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    if truncated:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    values = marshal.loads(_read(sock, size))  # noqa: S302 - the sender is root's daemon, over a pair of its own
    if values[0] != _FORMAT:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    (_, targets, kept, has_parcel, parcel_size, handles, uid, gid, groups) = values[:9]
    (tty, no_new_privs, directories, directory_needed, programs, argv, env) = values[9:]
    parcel = socket.socket(fileno=fds.pop()) if has_parcel else None
    namespace, channel, *sources = fds
    return Plan(
        channel=channel,
        namespace=namespace,
        fds={**dict(zip(targets, sources, strict=True)), **{number: number for number in kept}},
        parcel=parcel,
        parcel_size=parcel_size,
        handles=handles,
        uid=uid,
        gid=gid,
        groups=groups,
        tty=tty,
        no_new_privs=no_new_privs,
        directories=directories,
        directory_needed=directory_needed,
        programs=programs,
        argv=argv,
        env=env,
        clean=True,
    )


def _read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        data += piece
    return bytes(data)
