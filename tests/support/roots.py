# SPDX-License-Identifier: LGPL-2.1-or-later
"""The root trees that the machines of the system tests boot from: a minimal Debian of each release.

A tree is made once, by mmdebstrap(1), and never written to again: each boot has an overlay of its own. It is kept in
build/roots of the checkout, or where MOUNTNSD_ROOTS says, under a name that changes with its recipe.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_TIMEOUT = 600  # seconds
# Neither python nor polkit: they come with the package under test, or its dependencies are wrong.
_PACKAGES = (
    "ca-certificates",
    "dbus",
    "libpam-systemd",
    "mount",
    "passwd",
    "procps",
    "systemd",
    "systemd-container",
    "systemd-sysv",
    "util-linux",
)


@dataclass(frozen=True)
class Release:
    """A release of Debian. Attributes: name; bus: the package that is its system bus."""

    name: str
    bus: str


RELEASES = (Release("bookworm", "dbus-daemon"), Release("trixie", "dbus-broker"))


class RootError(Exception):
    """Why there is no root tree."""


def _apt_settings() -> list[str]:
    """What this machine's apt needs to reach its archives."""
    dump = subprocess.run(
        ["apt-config", "dump"], stdout=subprocess.PIPE, text=True, timeout=30, check=True
    ).stdout
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries")
    lines = [line for line in dump.splitlines() if line.startswith(wanted) and not line.endswith(' "";')]
    return [line.rstrip(";") for line in lines]


def _recipe(release: Release) -> list[str]:
    """The command that makes a tree, but for the release and the directory."""
    packages = [*_PACKAGES, *(["dbus-broker"] if release.bus == "dbus-broker" else [])]
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        f"--include={','.join(packages)}",
        # The lists stay, so that the package under test is installed without an update first.
        "--skip=cleanup/apt/lists",
        *(f"--aptopt={setting}" for setting in _apt_settings()),
    ]
    if certificates.exists():
        command.append(f"--customize-hook=copy-in {certificates} /etc/ssl/certs")
    # Nobody logs in, and a machine that asks for its first settings does not come up.
    command.append('--customize-hook=echo uninitialized > "$1"/etc/machine-id; rm -f "$1"/etc/resolv.conf')
    if release.bus == "dbus-broker":
        command.append('--customize-hook=systemctl --root="$1" enable dbus-broker.service')
    return command


def tree(release: Release, say: Callable[[str], None]) -> Path:
    """The root tree of a release, made if it is not there. Never write to it.

    Arguments: say: told what takes its time.

    Raises: RootError with the end of mmdebstrap's log.
    """
    recipe = _recipe(release)
    whole = _place_of(release, recipe)
    place = whole.parent
    place.mkdir(parents=True, exist_ok=True)
    with (place / f".{release.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.is_dir():
            for partial in place.glob(f".{release.name}-*"):  # nobody is at work on it: the lock is ours
                shutil.rmtree(partial)
            say(f"making a root tree of Debian {release.name} in {whole} (about half a minute) ...")
            _make(recipe, release, whole)
    return whole


def made(release: Release) -> Path | None:
    """The root tree of a release if it has been made."""
    whole = _place_of(release, _recipe(release))
    return whole if whole.is_dir() else None


def _place_of(release: Release, recipe: list[str]) -> Path:
    place = Path(os.environ.get("MOUNTNSD_ROOTS") or REPOSITORY / "build" / "roots").resolve()
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
    return place / f"{release.name}-{digest}"


def _make(recipe: list[str], release: Release, whole: Path) -> None:
    if shutil.which(recipe[0]) is None:
        raise RootError("mmdebstrap is not installed; 'make test-packages' installs it")
    partial = Path(tempfile.mkdtemp(prefix=f".{release.name}-", dir=whole.parent))
    log = partial.with_suffix(".log")
    try:
        with log.open("wb") as output:
            # What it mounts goes with it, even if it is killed.
            status = subprocess.run(
                ["unshare", "--mount", "--propagation=private", *recipe, release.name, str(partial)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_TIMEOUT,
                check=False,
            ).returncode
        if status != 0:
            said = log.read_text(errors="replace")[-4000:]
            raise RootError(f"mmdebstrap ended with status {status}:\n{said}")
        partial.chmod(0o755)
        partial.rename(whole)
    except subprocess.TimeoutExpired:
        raise RootError(f"mmdebstrap took longer than {_TIMEOUT} s; is there a network?") from None
    finally:
        log.unlink(missing_ok=True)
        if partial.exists():
            shutil.rmtree(partial)
