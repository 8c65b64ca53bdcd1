# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: its verbs and options, and how it is read.

It is read as getopt_long(3) does for systemd's tools: options may stand anywhere, long ones may be cut short while
they stay unambiguous, `--` ends them; and in the verbs that take a command its first word ends them too.

Out of scope: what the verbs do.  On the way of every verb: it imports nothing that costs time.
"""

from __future__ import annotations

import os

from mountnsd.ctl.grammar import Option, Verb
from mountnsd.ctl.problem import TROUBLE, Problem

RUNTIME_DIRECTORY = "/run/mountnsd"
JSON_MODES = ("pretty", "short", "off")
SIGPIPE_MODES = ("ignore", "default")
SORT_KEYS = ("name", "owner", "processes", "created")
PROPAGATIONS = ("slave", "private", "shared", "unchanged")
# All that an option can be, where that is few.
VALUES = {"json": JSON_MODES, "propagation": PROPAGATIONS, "sigpipe": SIGPIPE_MODES}
# What works over --host= and --machine=: all else needs this host's files, processes or descriptors.
_REMOTE = "busy create destroy diff list monitor mount mounts pids show status umount which"
REMOTE = tuple(_REMOTE.split())

_HINT = "'mountnsctl --help' shows what there is."


class Arguments:
    """A command line that has been read."""

    def __init__(self) -> None:
        self.verb = "list"
        self.names: list[str] = []
        self.command: list[str] = []
        self.action = ""  # "help" or "version", instead of the verb
        self.json = "off"
        self.legend = True
        self.pager = True
        self.ask_password = True
        self.quiet = False
        self.host: str | None = None
        self.machine: str | None = None
        self.runtime_directory = os.environ.get("MOUNTNSD_RUNTIME_DIRECTORY") or RUNTIME_DIRECTORY
        self.propagation: str | None = None
        self.description: str | None = None
        self.labels: list[str] = []
        self.source: str | None = None
        self.if_not_exists = False
        self.kill = False
        self.lazy = False
        self.if_exists = False
        self.user: str | None = None
        self.environment: dict[str, str] = {}
        self.chdir: str | None = None
        self.drop_capabilities: str | None = None
        self.argv0: str | None = None
        self.sigpipe: str | None = None
        self.runtime = False
        self.without_mount_sandbox = False
        self.now = False
        self.sort = "name"
        self.owner: str | None = None
        self.full = False
        self.properties: list[str] = []
        self.values_only = False
        self.lines = "10"
        self.fstype: str | None = None
        self.mount_options: list[str] = []
        self.bind = ""  # "bind" or "rbind"
        self.tree = True

    @property
    def remote(self) -> bool:
        """Whether another host or a container is meant."""
        return self.host is not None or self.machine is not None


VERBS = (
    Verb("list", "Namespace Commands", "list", "List the namespaces (the default)", 0, 0),
    Verb("status", "Namespace Commands", "status [NAME...]", "Show how namespaces are, for people", 0, None),
    Verb(
        "show", "Namespace Commands", "show NAME...", "Show properties of namespaces, for programs", 1, None
    ),
    Verb("create", "Namespace Commands", "create NAME", "Create a namespace", 1, 1),
    Verb("destroy", "Namespace Commands", "destroy NAME...", "Destroy one or more namespaces", 1, None),
    Verb("monitor", "Namespace Commands", "monitor", "Show what happens to namespaces, as it happens", 0, 0),
    Verb("edit", "Namespace Commands", "edit NAME", "Edit the declaration of a namespace", 1, 1),
    Verb("cat", "Namespace Commands", "cat [NAME...]", "Show declarations of namespaces", 0, None),
    Verb("verify", "Namespace Commands", "verify [FILE...]", "Check declarations of namespaces", 0, None),
    Verb("mounts", "Mount Commands", "mounts NAME", "Show the mounts in a namespace as a tree", 1, 1),
    Verb("mount", "Mount Commands", "mount NAME WHAT WHERE", "Mount in a namespace", 3, 3),
    Verb("umount", "Mount Commands", "umount NAME WHERE...", "Unmount in a namespace", 2, None),
    Verb(
        "diff",
        "Mount Commands",
        "diff NAME [OTHER]",
        "Show how its mounts differ from the host's, or from those of another namespace",
        1,
        2,
        answers=True,
    ),
    Verb(
        "enter",
        "Process Commands",
        "enter NAME [COMMAND...]",
        "Invoke a shell (or other command) in a namespace, through mountnsd",
        1,
        1,
        "optional",
    ),
    Verb(
        "exec",
        "Process Commands",
        "exec NAME COMMAND...",
        "Move into a namespace and become a command there (root and services)",
        1,
        1,
        "required",
    ),
    Verb("pids", "Process Commands", "pids NAME", "List the processes in a namespace", 1, 1),
    Verb("busy", "Process Commands", "busy NAME", "List what keeps a namespace besides its name", 1, 1),
    Verb(
        "which",
        "Process Commands",
        "which [PID]",
        "Print which namespace a process is in",
        0,
        1,
        answers=True,
    ),
    Verb("attach", "Service Commands", "attach UNIT NAME", "Have a systemd service run in a namespace", 2, 2),
    Verb("detach", "Service Commands", "detach UNIT", "Undo attach", 1, 1),
)

OPTIONS = (
    Option("help", "Show this help", "action", short="h", constant="help"),
    Option("version", "Show package version", "action", constant="version"),
    Option("no-pager", "Do not pipe output into a pager", "pager", constant=False),
    Option("no-legend", "Do not show the headers and footers", "legend", constant=False),
    Option("no-ask-password", "Do not ask for system passwords", "ask_password", constant=False),
    Option("quiet", "Suppress notes that are no errors", "quiet", short="q"),
    Option("host", "Operate on a remote host", "host", short="H", metavar="[USER@]HOST"),
    Option("machine", "Operate on a local container", "machine", short="M", metavar="CONTAINER"),
    Option("json", "Output as JSON: pretty, short or off", "json", metavar="MODE"),
    Option(
        "j",
        "Same as --json=pretty on a terminal, --json=short otherwise",
        "json",
        short="j",
        constant="auto",
    ),
    Option(
        "runtime-directory",
        "Where the namespaces are pinned, for exec",
        "runtime_directory",
        metavar="PATH",
    ),
    Option(
        "propagation",
        "How mounts travel between host and namespace: slave, private, shared, unchanged",
        "propagation",
        metavar="MODE",
        verbs=("create",),
    ),
    Option(
        "description", "A line that says what it is for", "description", metavar="TEXT", verbs=("create",)
    ),
    Option(
        "label",
        "Add a label; with list, only namespaces that have it",
        "labels",
        metavar="KEY[=VALUE]",
        verbs=("create", "list"),
    ),
    Option("from", "Copy that namespace instead of the host's", "source", metavar="NAME", verbs=("create",)),
    Option("if-not-exists", "Do nothing if there is one already", "if_not_exists", verbs=("create",)),
    Option("kill", "End the processes inside first", "kill", verbs=("destroy",)),
    Option("lazy", "Drop the name, or the mount, though it is in use", "lazy", verbs=("destroy", "umount")),
    Option("if-exists", "Do nothing if there is none", "if_exists", verbs=("destroy",)),
    Option("owner", "Only those of that user", "owner", metavar="USER", verbs=("list",)),
    Option(
        "sort",
        "By name, owner, processes, created; -KEY: downwards",
        "sort",
        metavar="KEY,...",
        verbs=("list",),
    ),
    Option("full", "With all columns; with nothing left out", "full", short="l", verbs=("list", "status")),
    Option("lines", "Lines of the log", "lines", short="n", metavar="N", verbs=("status",)),
    Option("property", "Only these", "properties", short="p", metavar="NAME,...", verbs=("show",)),
    Option("value", "Without the names", "values_only", verbs=("show",)),
    Option("list", "As a list and not as a tree", "tree", constant=False, verbs=("mounts",)),
    Option("type", "The type of the filesystem", "fstype", short="t", metavar="TYPE", verbs=("mount",)),
    Option(
        "options", "As those of mount(8)", "mount_options", short="o", metavar="OPTION,...", verbs=("mount",)
    ),
    Option("bind", "Show WHAT of the host", "bind", constant="bind", verbs=("mount",)),
    Option("rbind", "The same with the mounts below it", "bind", constant="rbind", verbs=("mount",)),
    Option("user", "Enter as that user", "user", metavar="USER", verbs=("enter",)),
    Option(
        "setenv",
        "Add an environment variable",
        "environment",
        short="E",
        metavar="VAR[=VALUE]",
        verbs=("enter", "exec"),
    ),
    Option("chdir", "Start in that directory of the namespace", "chdir", metavar="PATH", verbs=("enter",)),
    Option(
        "drop-capabilities",
        "Give these up inside; by default all that a user but root needs for the way in",
        "drop_capabilities",
        metavar="CAP,...",
        verbs=("exec",),
    ),
    Option("argv0", "What the command is called", "argv0", metavar="NAME", verbs=("exec",)),
    Option(
        "sigpipe",
        "SIGPIPE for the command: ignore or default",
        "sigpipe",
        metavar="MODE",
        verbs=("exec",),
    ),
    Option("runtime", "Until the next reboot only", "runtime", verbs=("attach",)),
    Option(
        "without-mount-sandbox",
        "Take settings from the unit that give it mounts of its own",
        "without_mount_sandbox",
        verbs=("attach",),
    ),
    Option("now", "Restart the service if it runs", "now", verbs=("attach", "detach")),
)


def find_verb(name: str) -> Verb:
    """The verb of that name.  Raises: Problem with a hint."""
    for verb in VERBS:
        if verb.name == name:
            return verb
    raise Problem(f"Unknown verb '{name}'{_similar(name, [verb.name for verb in VERBS])} {_HINT}")


def parse(words: list[str]) -> Arguments:
    """Read a command line, without the program's name.

    Raises: Problem that says what is wrong with it and what would be right.
    """
    arguments = Arguments()
    positional: list[str] = []
    try:
        used = _read(words, arguments, positional)
        if not arguments.action:
            _assign(arguments, positional, used)
    except Problem as problem:
        if any(verb.answers for verb in VERBS if [verb.name] == positional[:1]):
            problem.status = TROUBLE
        raise
    return arguments


def _read(words: list[str], arguments: Arguments, positional: list[str]) -> list[Option]:
    """Tell options from the other words, which go to `positional`; returns the options."""
    used: list[Option] = []
    rest = list(words)
    while rest and not arguments.action:
        word = rest.pop(0)
        if word == "--":
            positional += rest
            break
        if word.startswith("--"):
            used.append(_long(word[2:], rest, arguments))
        elif word.startswith("-") and word != "-":
            used += _short(word[1:], rest, arguments)
        else:
            positional.append(word)
            if len(positional) == 3 and find_verb(positional[0]).command:
                positional += rest
                break
    return used


def _assign(arguments: Arguments, positional: list[str], used: list[Option]) -> None:
    """Tell verb, names and command apart and hold them against what the verb takes."""
    verb = find_verb(positional[0] if positional else arguments.verb)
    arguments.verb = verb.name
    names = positional[1:]
    if verb.command:
        names, arguments.command = names[:1], names[1:]
    arguments.names = names
    usage = f"the usage is 'mountnsctl {verb.synopsis}'"
    if len(names) < verb.least or (verb.command == "required" and not arguments.command):
        raise Problem(f"Too few arguments for '{verb.name}': {usage}.")
    if verb.most is not None and len(names) > verb.most:
        raise Problem(f"Too many arguments for '{verb.name}': {usage}.")
    for option in used:
        if option.verbs and verb.name not in option.verbs:
            owner = " and ".join(f"'{name}'" for name in option.verbs)
            raise Problem(f"'{verb.name}' has no option '--{option.long}'; that is one of {owner}.")
    for label in arguments.labels:
        if verb.name == "create" and "=" not in label:
            raise Problem(f"'{label}' does not fit '--label=KEY=VALUE'.")
    _check_place(arguments)


def _check_place(arguments: Arguments) -> None:
    """Hold the verb against where it shall work."""
    if arguments.host is not None and arguments.machine is not None:
        raise Problem(
            "--host= and --machine= exclude each other; a container of a host is --host=HOST/CONTAINER."
        )
    if not arguments.remote or arguments.verb in REMOTE:
        return
    way = "ssh -t HOST" if arguments.machine is None else "systemd-run --pty --machine=CONTAINER"
    raise Problem(f"Cannot {arguments.verb} remotely: run '{way} mountnsctl {arguments.verb} ...' instead.")


def _long(text: str, rest: list[str], arguments: Arguments) -> Option:
    name, equals, value = text.partition("=")
    known = [option for option in OPTIONS if len(option.long) > 1]
    found = [option for option in known if option.long == name]
    found = found or [option for option in known if name and option.long.startswith(name)]
    if not found:
        raise Problem(f"Unknown option '--{name}'{_similar(name, [o.long for o in known], '--')} {_HINT}")
    if len(found) > 1:
        candidates = ", ".join(f"--{option.long}" for option in found)
        raise Problem(f"The option '--{name}' is ambiguous: it may be one of {candidates}.")
    option = found[0]
    if equals and not option.metavar:
        raise Problem(f"The option '--{option.long}' takes no value.")
    if not option.metavar:
        setattr(arguments, option.attribute, option.constant)
    elif equals:
        _store(arguments, option, value)
    else:
        _store(arguments, option, _next(f"--{option.long}={option.metavar}", rest))
    return option


def _short(letters: str, rest: list[str], arguments: Arguments) -> list[Option]:
    used = []
    while letters and not arguments.action:
        letter, letters = letters[0], letters[1:]
        option = next((option for option in OPTIONS if option.short == letter), None)
        if option is None:
            raise Problem(f"Unknown option '-{letter}'. {_HINT}")
        used.append(option)
        if option.metavar:
            _store(arguments, option, letters or _next(f"-{letter} {option.metavar}", rest))
            break
        setattr(arguments, option.attribute, option.constant)
    return used


def _next(usage: str, rest: list[str]) -> str:
    if not rest:
        raise Problem(f"The option '{usage}' needs a value.")
    return rest.pop(0)


def _store(arguments: Arguments, option: Option, value: str) -> None:
    _check(option, value)
    target = getattr(arguments, option.attribute)
    if isinstance(target, list):
        target.append(value)
    elif isinstance(target, dict):
        key, equals, text = value.partition("=")
        if equals:
            target[key] = text
        elif key in os.environ:  # VAR alone hands our own on
            target[key] = os.environ[key]
    else:
        setattr(arguments, option.attribute, value)


def _check(option: Option, value: str) -> None:
    """Raises: Problem where an option cannot have that value."""
    choices = VALUES.get(option.long)
    if choices and value not in choices:
        raise Problem(f"'{value}' is no mode for --{option.long}: it is one of {', '.join(choices)}.")
    if option.long in ("label", "setenv") and not value.partition("=")[0]:
        raise Problem(f"'{value}' does not fit '--{option.long}={option.metavar}'.")
    if option.long == "lines" and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise Problem(f"'{value}' is no number of lines.")
    if option.long == "sort":
        for key in value.split(","):
            if key.removeprefix("-") not in SORT_KEYS:
                raise Problem(f"'{key}' is nothing to sort by: that is {', '.join(SORT_KEYS)}, or -KEY.")


def _similar(name: str, known: list[str], prefix: str = "") -> str:
    """The end of a sentence: a question for what was probably meant, or a full stop."""
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f", did you mean '{prefix}{close[0]}'?" if close else "."
