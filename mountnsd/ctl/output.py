# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a verb has to say: as text, through a pager, or as JSON."""

from __future__ import annotations

from mountnsd.ctl import text
from mountnsd.ctl.options import Arguments


class Output:
    """The output of one command line.

    Attributes: json: "pretty" or "short", or empty for text; colours; legend.
    """

    def __init__(self, arguments: Arguments) -> None:
        mode = arguments.json
        if mode == "auto":
            mode = "pretty" if text.is_terminal(1) else "short"
        self.json = "" if mode == "off" else mode
        self.legend = arguments.legend
        self.colours = text.colours(1)
        self._pager = arguments.pager and text.is_terminal(1)
        self._quiet = arguments.quiet
        self._remote = arguments.remote

    def value(self, value: object) -> None:
        """Write a value as JSON, ASCII throughout: on one line, or with `pretty` indented."""
        import json

        if self.json == "pretty":
            self.page(json.dumps(value, indent="\t") + "\n")
        else:
            self.page(json.dumps(value, separators=(",", ":")) + "\n")

    def page(self, content: str) -> None:
        """Write a text, through a pager where one belongs."""
        if self._pager:
            from mountnsd.ctl.pager import show

            if show(content):
                return
        text.write(content)

    def note(self, line: str) -> None:
        """Say something on standard error that is no failure, unless --quiet."""
        if not self._quiet:
            text.note(text.plain(line))

    def user(self, uid: int) -> str:
        """A user's name, or his number where he has none, and where he is another host's."""
        import pwd

        if self._remote:
            return str(uid)
        try:
            return pwd.getpwuid(uid).pw_name
        except (KeyError, OverflowError):
            return str(uid)
