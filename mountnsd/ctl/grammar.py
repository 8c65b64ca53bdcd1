# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a verb and an option of the command line are.

Out of scope: which there are (options.py).  On the way of every verb: it imports nothing that costs time.
"""

from __future__ import annotations


class Verb:
    """A verb: how many names it takes (`most` None: any number), and whether a command follows.

    `answers`: the exit status 1 is an answer, as that of diff(1), and so trouble is 2.
    """

    def __init__(
        self,
        name: str,
        group: str,
        synopsis: str,
        help_: str,
        least: int,
        most: int | None,
        command: str = "",
        *,
        answers: bool = False,
    ) -> None:
        self.name = name
        self.group = group
        self.synopsis = synopsis
        self.help = help_
        self.least = least
        self.most = most
        self.command = command  # "", "optional" or "required"
        self.answers = answers


class Option:
    """An option: the attribute of Arguments that it sets, to its value or (a flag) to `constant`.

    `verbs`: those that take it, none for all; `metavar`: what its value is, empty for a flag.
    """

    def __init__(
        self,
        long: str,
        help_: str,
        attribute: str,
        *,
        short: str = "",
        metavar: str = "",
        constant: str | bool = True,
        verbs: tuple[str, ...] = (),
    ) -> None:
        self.long = long
        self.help = help_
        self.attribute = attribute
        self.short = short
        self.metavar = metavar
        self.constant = constant
        self.verbs = verbs
