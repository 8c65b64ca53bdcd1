# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who a process is to be: uid, gid, groups, and what the user database says of him.

Everything here asks NSS, which may read files, talk to a directory server and
block: call it in a thread.  It is the host's user database that answers, never
the namespace's, whose /etc/passwd may be somebody else's mount.

Out of scope: whether the caller may be that user, and becoming him.

Sources: getpwnam(3), getgrouplist(3), credentials(7), and the D-Bus
specification on GetConnectionCredentials.
"""

import os
import pwd
import re
from dataclasses import dataclass

from mountnsd import names
from mountnsd.errors import AccessDenied, NoSuchUser

MAX_ID = 2**32 - 2  # (uid_t)-1 means "leave as it is" to setresuid(2): a process would stay root
MAX_USER_NAME = 256

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_DEFAULT_SHELL = "/bin/sh"  # what passwd(5) says of an empty field


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as a process has him.

    Arguments: uid, gid; groups: the supplementary groups, nothing else is added to them; name, home and shell:
        as in passwd(5), the last two absolute paths.
    Raises: ValueError for an id that the kernel would take as "unchanged" or could not hold.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str

    def __post_init__(self) -> None:
        """Hold the ids to what setresuid(2) and setgroups(2) can set."""
        for number in (self.uid, self.gid, *self.groups):
            if not 0 <= number <= MAX_ID:
                raise ValueError(f"{number} is no uid or gid")


def of_user(user: str) -> Identity:
    """The user `user`, with all the groups that the database gives him.

    Arguments: user: a name, or a uid in decimal.  What consists of digits is always a uid, so that nobody can be
        taken for another by a name made of digits.
    Raises: NoSuchUser: the database has no such user, or what it has cannot be used.
    """
    if not _DIGITS.fullmatch(user):
        return _with_all_groups(_by_name(user), user)
    if not _DECIMAL.fullmatch(user) or int(user) > MAX_ID:
        raise _no_such_user(user)
    return _with_all_groups(_by_uid(int(user)), user)


def of_caller(uid: int, bus_groups: tuple[int, ...] | None) -> Identity:
    """The caller, to enter as himself: never with a group that he does not have now.

    His groups are those the bus reports, whatever the database says: he may have been given less (a service, a
    sandbox, a session from before he was added to a group), and a process of his must not get it back here.

    The bus reports the primary group among the others without saying which it is.  It is taken to be the
    database's one where the caller has that; else the first in the list, which he has too: a dropped primary
    group must not come back, and a gid that is not his must not come in.

    Arguments: uid: UnixUserID of the bus; bus_groups: UnixGroupIDs, or None from a bus that does not tell them
        (dbus-daemon before 1.13), where the database's groups stand in.
    Raises: NoSuchUser: the database has no user of that uid (there is no home, shell or name to give him).
        AccessDenied: the bus reports that he is in no group at all, which no process is.
    """
    entry = _by_uid(uid)
    if bus_groups is None:
        return _with_all_groups(entry, str(uid))
    if not bus_groups:
        raise AccessDenied("The bus does not say which groups the caller has; enter from another session.")
    groups = tuple(dict.fromkeys(bus_groups))
    gid = entry.pw_gid if entry.pw_gid in groups else groups[0]
    return _identity(entry, gid, groups, str(uid))


def _no_such_user(user: str) -> NoSuchUser:
    return NoSuchUser(f"There is no user {names.shown(user)}; 'getent passwd' shows those there are.")


def _by_name(user: str) -> pwd.struct_passwd:
    if not user.isprintable() or not 0 < len(user) <= MAX_USER_NAME:
        raise _no_such_user(user)
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):  # ValueError: not to be had in the locale's encoding
        raise _no_such_user(user) from None


def _by_uid(uid: int) -> pwd.struct_passwd:
    if not 0 <= uid <= MAX_ID:
        raise _no_such_user(str(uid))
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise _no_such_user(str(uid)) from None
    if entry.pw_uid != uid:
        raise _no_such_user(str(uid))
    return entry


def _with_all_groups(entry: pwd.struct_passwd, asked: str) -> Identity:
    groups = tuple(dict.fromkeys(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    return _identity(entry, entry.pw_gid, groups, asked)


def _identity(entry: pwd.struct_passwd, gid: int, groups: tuple[int, ...], asked: str) -> Identity:
    # A relative home or shell would be looked up wherever the process happens to stand.
    home = entry.pw_dir if entry.pw_dir.startswith("/") else "/"
    shell = entry.pw_shell or _DEFAULT_SHELL
    if not shell.startswith("/"):
        raise NoSuchUser(f"The user {names.shown(asked)} has no usable login shell; correct it with chsh(1).")
    try:
        return Identity(entry.pw_uid, gid, groups, entry.pw_name, home, shell)
    except ValueError:
        raise NoSuchUser(
            f"The user database gives {names.shown(asked)} an id that no process can have; correct it there."
        ) from None
