# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shells whose completion is tested: each is asked what it offers for a line, and is the real one."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .ctl import Ctl, Terminal, wait_until
from .daemon import REPOSITORY

COMPLETIONS = REPOSITORY / "completions"
TIMEOUT = 60.0

# In a mount namespace of its own, with a declared namespace of each kind.
_DECLARED = """\
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
mkdir -p /etc/mountnsd/namespaces
touch /etc/mountnsd/namespaces/declared-one.toml /etc/mountnsd/namespaces/declared-two.toml
shift
exec "$@"
"""


class Shell(Protocol):
    """A shell, until it is closed."""

    def offers(self, line: str) -> list[str]:
        """What it offers for the last word of a line, sorted."""

    def close(self) -> None:
        """End it, where it runs all the time."""


class Place:
    """Where the shells are run: with mountnsctl on their PATH, on the bus of a test.

    Attributes: environment; command: what a shell is started by.
    """

    def __init__(self, ctl: Ctl, directory: Path) -> None:
        tools = directory / "tools"
        tools.mkdir()
        program = tools / "mountnsctl"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(ctl.command)} "$@"\n')
        program.chmod(0o755)
        self.directory = directory
        self.environment = {
            **ctl.environment,
            "PATH": f"{tools}:{ctl.environment['PATH']}",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        layer = directory / "layer"
        layer.mkdir()
        mount = ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", _DECLARED, "sh", str(layer)]
        self.command: list[str] = mount

    def run(self, *words: str) -> str:
        """Run a shell to its end; returns its output.  Raises: AssertionError if it complains."""
        result = subprocess.run(
            [*self.command, *words],
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert result.stderr == "", result
        return result.stdout


# A line is given as bash splits it: an = is a word of its own.
_BASH = """\
compopt() { :; }  # it works below the line editor only
. /usr/share/bash-completion/bash_completion
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
_mountnsctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Bash:
    """bash(1), by the function that it calls."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def close(self) -> None:
        """Nothing runs."""

    def offers(self, line: str) -> list[str]:
        """What it offers for the last word of a line, sorted."""
        words = [part for word in line.split(" ") for part in _parts(word)]
        out = self._place.run("bash", "-c", _BASH, "bash", str(COMPLETIONS / "mountnsctl.bash"), *words)
        return sorted({word.rstrip(" ") for word in out.splitlines() if word})


def _parts(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    if not equals or not word.startswith("--"):
        return [word]
    return [name, "=", value] if value else [name, "="]


# A widget that completes, and tells what was offered.
_ZSH = """\
PS1='ready> '
fpath=("$COMPLETIONS" $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)* ]]; then
        local -a offered
        builtin compadd -A offered "$@"
        print -rl -- $offered >>"$HOME/offered"
    fi
    builtin compadd "$@"
}
_offer() {
    _main_complete
    compstate[insert]= compstate[list]=
    print -r -- 'that is all' >>"$HOME/offered"
}
zle -C offer list-choices _offer
bindkey '^T' offer
"""


class Zsh:
    """zsh(1), on a terminal, by its own line editor."""

    def __init__(self, place: Place) -> None:
        (place.directory / ".zshrc").write_text(_ZSH)
        self._offered = place.directory / "offered"
        environment = {"COMPLETIONS": str(COMPLETIONS), "ZDOTDIR": str(place.directory)}
        self._terminal = Terminal(place, "zsh", "-d", "-i", env=environment)
        self._terminal.expect("ready> ")

    def offers(self, line: str) -> list[str]:
        """What it offers for the last word of a line, sorted."""
        self._offered.unlink(missing_ok=True)
        self._terminal.press(f"\x15{line}\x14")  # in place of the line before
        wait_until(lambda: "that is all\n" in self._text())
        return sorted({word for word in self._text().splitlines()[:-1] if word})

    def _text(self) -> str:
        return self._offered.read_text() if self._offered.exists() else ""

    def close(self) -> None:
        """End it."""
        self._terminal.press("\x15exit\r")
        self._terminal.end()
        self._terminal.hang_up()


class Fish:
    """fish(1), by its complete command."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def close(self) -> None:
        """Nothing runs."""

    def offers(self, line: str) -> list[str]:
        """What it offers for the last word of a line, sorted."""
        script = f"source {COMPLETIONS}/mountnsctl.fish; complete -C {shlex.quote(line)}"
        out = self._place.run("fish", "--no-config", "-c", script)
        return sorted({word.split("\t")[0] for word in out.splitlines()})


SHELLS: dict[str, Callable[[Place], Shell]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
