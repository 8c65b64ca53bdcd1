# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to a mountnsd that is none, for what the verbs of mountnsctl ask and print."""

from typing import Any

from mountnsd.ctl import connection
from mountnsd.ctl.connection import MANAGER, NAMESPACE

EVIL = "evil\x1b[2J\nname"
PATH = "/org/mountnsd1/namespace/demo"
OTHER = "/org/mountnsd1/namespace/zz"
PROPERTIES: dict[str, Any] = {
    "Name": "demo",
    "Path": "/run/mountnsd/ns/demo",
    "Inode": 4026532177,
    "NamespaceID": 77,
    "OwnerUID": 0,
    "CreatedUSec": 1_700_000_000_000_000,
    "Propagation": "slave",
    "Description": f"A {EVIL}",
    "Labels": {"b": "2", "a": EVIL},
    "State": "active",
}
OTHERS: dict[str, Any] = {
    **PROPERTIES,
    "Name": "zz",
    "Path": "/run/mountnsd/ns/zz",
    "Inode": 5,
    "OwnerUID": 4_000_000_000,
    "CreatedUSec": 0,
    "Description": "",
    "Labels": {},
}
MOUNTS = [
    (1, 0, "8:1", "/", "/", "rw,relatime", "ext4", "/dev/sda1"),
    (2, 1, "8:1", "/sub", f"/{EVIL}", "ro", "ext4", "/dev/sda1"),
]
CHANGES = [
    ("added", "/mnt", "tmpfs", "tmpfs", "/", "rw,size=1024k"),
    ("changed", f"/{EVIL}", "ext4", "/dev/sda1", "/sub", "ro"),
    ("removed", "/srv", "xfs", "/dev/sdb", "/", "rw"),
]


class Fake:
    """A daemon that has the namespaces `demo` and `zz`; remembers the calls that change something.

    Attributes: answers: by interface and member, the same for both namespaces; or by path and member.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.objects = {PATH: dict(PROPERTIES), OTHER: dict(OTHERS)}
        self.local = False
        self.refused: Exception | None = None
        self.answers: dict[tuple[str, str], Any] = {
            (MANAGER, "List"): [("demo", PATH, 4026532177, 0, 0), ("zz", OTHER, 5, 4_000_000_000, 2)],
            (MANAGER, "GetNamespaceByPID"): PATH,
            (NAMESPACE, "GetProcesses"): [(31, 0, EVIL), (4, 0, "sleep")],
            (NAMESPACE, "GetMounts"): MOUNTS,
            (NAMESPACE, "GetChanges"): CHANGES,
        }

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, path: str, interface: str, member: str, signature: str = "", body: Any = ()) -> tuple[Any]:
        assert path in (connection.PATH, *self.objects)
        assert bool(signature) == bool(body)
        if self.refused is not None:
            raise self.refused
        if member == "GetManagedObjects":
            return ({found: self._interfaces(found) for found in self.objects},)
        return (self.answers.get((path, member)) or self.answers[interface, member],)

    def _interfaces(self, path: str) -> dict[str, dict[str, tuple[str, Any]]]:
        return {NAMESPACE: {key: ("?", value) for key, value in self.objects[path].items()}}

    def namespace(self, name: str) -> str:
        for path, properties in self.objects.items():
            if properties["Name"] == name:
                return path
        said = f"There is no namespace '{name}'."
        raise connection.CallProblem("org.mountnsd1.Error.NoSuchNamespace", said)

    def properties(self, path: str) -> dict[str, Any]:
        return dict(self.objects[path])

    def manager(self, member: str, signature: str, body: tuple[Any, ...]) -> tuple[Any]:
        self.calls.append((member, signature, *body))
        if member == "Create":
            return (PATH,)
        self.namespace(body[0])
        return ([9, 4],)

    def change(self, path: str, member: str, signature: str, body: tuple[Any, ...]) -> tuple[()]:
        assert path in self.objects
        self.calls.append((member, signature, *body))
        if body[0] == "/refused":
            raise connection.CallProblem("org.mountnsd1.Error.MountFailed", "Cannot do it.")
        return ()
