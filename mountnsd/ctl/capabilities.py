# SPDX-License-Identifier: LGPL-2.1-or-later
"""Capabilities by name, and giving some of them up for good.

On the way of `exec`: it imports nothing that costs time.  Source: capabilities(7), linux/capability.h.
"""

from __future__ import annotations

from mountnsd import syscalls
from mountnsd.ctl.problem import Problem

# In the order of their numbers, from 0.
_ALL = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID "
    "CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW "
    "CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT "
    "CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD "
    "CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG "
    "CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
)
NAMES = tuple(_ALL.split())

DAC_READ_SEARCH = 1 << NAMES.index("CAP_DAC_READ_SEARCH")
SETPCAP = 1 << NAMES.index("CAP_SETPCAP")
SYS_CHROOT = 1 << NAMES.index("CAP_SYS_CHROOT")
SYS_ADMIN = 1 << NAMES.index("CAP_SYS_ADMIN")

# What it takes to move into a mount namespace: setns(2) needs the first two, to reach the pin as somebody else than
# root, the third.
WAY_IN = SYS_ADMIN | SYS_CHROOT
USERS_WAY_IN = WAY_IN | DAC_READ_SEARCH


def mask_of(text: str) -> int:
    """The mask of a list of names as `CAP_SYS_ADMIN,CAP_SYS_CHROOT`; empty is none.  Raises: Problem."""
    mask = 0
    for word in text.replace(",", " ").split():
        if word.upper() not in NAMES:
            raise Problem(
                f"'{word}' is no capability: write them as in capabilities(7), with commas between."
            )
        mask |= 1 << NAMES.index(word.upper())
    return mask


def names_of(mask: int) -> list[str]:
    """The names of the capabilities in a mask, those that have one."""
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def give_up_inherited(dropped: int) -> None:
    """Give capabilities up, but for the permitted and effective sets.

    So nothing is left of them after execve(2), except that root has what the bounding set has; it is cut where that
    is allowed (CAP_SETPCAP).  Raises: OSError.
    """
    effective, permitted, inheritable = syscalls.get_capabilities()
    for number in _numbers(dropped):
        if effective & SETPCAP and syscalls.in_bounding_set(number):
            syscalls.drop_from_bounding_set(number)
        syscalls.lower_ambient_capability(number)
    syscalls.set_capabilities(effective, permitted, inheritable & ~dropped)


def give_up(dropped: int) -> bool:
    """Give capabilities up in the effective, permitted and inheritable sets, and with these in the ambient set.

    Returns whether the kernel agrees that they are gone.  Raises: OSError.  Needs no file, no import.
    """
    effective, permitted, inheritable = syscalls.get_capabilities()
    syscalls.set_capabilities(effective & ~dropped, permitted & ~dropped, inheritable & ~dropped)
    return not any(mask & dropped for mask in syscalls.get_capabilities())


def in_bounding_set(mask: int) -> int:
    """Those of the capabilities that are in the bounding set.  Raises: OSError."""
    return sum(1 << number for number in _numbers(mask) if syscalls.in_bounding_set(number))


def _numbers(mask: int) -> list[int]:
    return [number for number in range(len(NAMES)) if mask >> number & 1]
