# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pager, chosen and set up as systemd's tools do.

$SYSTEMD_PAGER, else $PAGER, else less(1) or more(1); empty or `cat` is none.  less gets $SYSTEMD_LESS, by default
FRSXMK.  For root in a session that is not root's, only less is used and without its ways to start other programs,
unless $SYSTEMD_PAGERSECURE says no.

Source: proc_pid_loginuid(5); sudo(8), pkexec(1) and doas(1) for who asked.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

_LESS = "FRSXMK"
_LOGIN_UID = Path("/proc/self/loginuid")
_UNSET = str(2**32 - 1)
_ASKED_BY = ("SUDO_UID", "PKEXEC_UID", "DOAS_USER")


def show(content: str) -> bool:
    """Show a text in the pager and wait for its end.  False: there is none, or none could be started."""
    secure = _secure()
    for command in _candidates(secure):
        if command[0] == "cat":
            return False
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=_environment(secure))
        except OSError:
            continue
        _feed(process, content)
        return True
    return False


def _candidates(secure: bool) -> list[list[str]]:
    if secure:
        return [["less"]]
    for variable in ("SYSTEMD_PAGER", "PAGER"):
        if variable in os.environ:
            return [os.environ[variable].split() or ["cat"], ["less"], ["more"]]
    return [["less"], ["more"]]


def _secure() -> bool:
    wish = os.environ.get("SYSTEMD_PAGERSECURE", "").lower()
    if wish:
        return wish not in ("0", "no", "n", "false", "f", "off")
    return os.geteuid() == 0 and not _session_is_roots()


def _session_is_roots() -> bool:
    """Whether root logged in, or nobody did and nobody else is known to have asked root."""
    try:
        uid = _LOGIN_UID.read_text("ascii").strip()
    except OSError:  # a kernel without audit
        uid = _UNSET
    if uid != _UNSET:
        return uid == "0"
    return not any(variable in os.environ for variable in _ASKED_BY)


def _environment(secure: bool) -> dict[str, str]:
    environment = {
        **os.environ,
        "LESS": os.environ.get("SYSTEMD_LESS", _LESS),
        "LESSCHARSET": os.environ.get("SYSTEMD_LESSCHARSET", "utf-8"),
    }
    if secure:
        environment["LESSSECURE"] = "1"
    else:
        environment.pop("LESSSECURE", None)
    return environment


def _feed(process: subprocess.Popen[bytes], content: str) -> None:
    """Hand the text over; Ctrl-C is the pager's meanwhile, and leaving it early is no error."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.communicate(content.encode(errors="backslashreplace"))
    finally:
        signal.signal(signal.SIGINT, before)
