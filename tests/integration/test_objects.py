# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every object is at its place, shows what the interface files say of it, and has what it shows."""

import os
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from jeepney import HeaderFields
from support.client import MANAGER, NAMESPACE, PATH, PROPERTIES, Client
from support.contract import (
    INTERFACES,
    INTROSPECTABLE,
    OBJECT_MANAGER,
    PEER,
    READ_ONLY,
    UNKNOWN_INTERFACE,
    UNKNOWN_METHOD,
    UNKNOWN_OBJECT,
    UNKNOWN_PROPERTY,
    create,
    described,
    methods,
    path_of,
    refused,
)
from support.daemon import Daemon

pytestmark = pytest.mark.usefixtures("daemon")

COMMON = {PEER, INTROSPECTABLE, PROPERTIES}
MANAGER_HAS = COMMON | {OBJECT_MANAGER, MANAGER}
NAMESPACE_HAS = COMMON | {NAMESPACE}


def introspect(client: Client, path: str) -> ET.Element:
    """What an object says of itself."""
    return ET.fromstring(client.call(path, INTROSPECTABLE, "Introspect")[0])


def canonical(element: ET.Element) -> str:
    """An element without comments, and white space that means nothing."""
    return ET.canonicalize(ET.tostring(element, encoding="unicode"), strip_text=True, with_comments=False)


def interfaces(node: ET.Element) -> dict[str, str]:
    """The interfaces of an object, in canonical form."""
    return {element.attrib["name"]: canonical(element) for element in node.findall("interface")}


def declared() -> dict[str, str]:
    """The interfaces of the files, in canonical form."""
    found = {}
    for file in INTERFACES.glob("*.xml"):
        for element in ET.parse(file).iter("interface"):
            found[element.attrib["name"]] = canonical(element)
    return found


def types(interface: str) -> dict[str, str]:
    """The properties of an interface and their types, by its file."""
    return {
        item.attrib["name"]: item.attrib["type"]
        for owner, item in described("property")
        if owner == interface
    }


class TestIntrospection:
    """What the running daemon shows is what the files say."""

    def test_every_object(self, root: Client) -> None:
        create(root, "a.b")
        create(root, "1c")
        for path, has in (
            (PATH, MANAGER_HAS),
            (path_of("a.b"), NAMESPACE_HAS),
            (path_of("1c"), NAMESPACE_HAS),
        ):
            found = interfaces(introspect(root, path))
            assert found == {name: text for name, text in declared().items() if name in has}

    def test_the_tree_leads_to_every_object(self, root: Client) -> None:
        created = {create(root, name) for name in ("one", "t-w-o", "3")}
        seen: dict[str, set[str]] = {}

        def walk(path: str) -> None:
            node = introspect(root, path)
            seen[path] = set(interfaces(node))
            for child in node.findall("node"):
                walk(f"{path.rstrip('/')}/{child.attrib['name']}")

        walk("/")
        assert {path for path, has in seen.items() if NAMESPACE in has} == created
        assert {path for path, has in seen.items() if MANAGER in has} == {PATH}
        assert set(seen) == {"/", "/org", PATH, PATH + "/namespace"} | created


class TestProperties:
    """Every property has a value of its type."""

    def test_of_the_manager(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        values = root.call(PATH, PROPERTIES, "GetAll", "s", MANAGER)[0]
        assert {name: value[0] for name, value in values.items()} == types(MANAGER)
        assert values["Holder"][1] == str(daemon.holder)
        assert values["Count"][1] == 1
        assert values["MaxNamespaces"][1] == 16384
        assert re.fullmatch(r"\d+(\.\d+)*", values["Version"][1])
        assert "enter" in values["Features"][1]
        for name, value in values.items():
            assert root.call(PATH, PROPERTIES, "Get", "ss", MANAGER, name)[0] == value

    def test_of_a_namespace(self, daemon: Daemon, root: Client) -> None:
        before = time.time_ns() // 1000
        path = create(root, "x", description=("s", "größer"), labels=("a{ss}", {"a/b": "c"}))
        values = root.call(path, PROPERTIES, "GetAll", "s", NAMESPACE)[0]
        assert {name: value[0] for name, value in values.items()} == types(NAMESPACE)
        plain = {name: value[1] for name, value in values.items()}
        assert before <= plain.pop("CreatedUSec") <= time.time_ns() // 1000
        assert plain.pop("NamespaceID") >= 0
        inode = plain.pop("Inode")
        assert daemon.pinned() == {inode}
        assert os.path.samefile(plain.pop("Path"), daemon.pins / "x")
        assert plain == {
            "Name": "x",
            "OwnerUID": 0,
            "Propagation": "slave",
            "Description": "größer",
            "Labels": {"a/b": "c"},
            "State": "active",
        }
        for name, value in values.items():
            assert root.call(path, PROPERTIES, "Get", "ss", NAMESPACE, name)[0] == value

    def test_without_an_interface(self, root: Client) -> None:
        path = create(root, "x")
        assert root.get(path, "", "Name") == "x"
        assert set(root.call(path, PROPERTIES, "GetAll", "s", "")[0]) == set(types(NAMESPACE))

    def test_none_can_be_set(self, root: Client) -> None:
        path = create(root, "x")
        for place, owner in ((PATH, MANAGER), (path, NAMESPACE)):
            for name in types(owner):
                error = refused(root.call, place, PROPERTIES, "Set", "ssv", owner, name, ("s", "new"))
                assert error.name == READ_ONLY
        assert root.get(path, NAMESPACE, "Description") == ""

    def test_what_is_not_there(self, root: Client) -> None:
        path = create(root, "x")
        asks = [
            (PATH, "Get", "ss", (MANAGER, "Nothing"), UNKNOWN_PROPERTY),
            (PATH, "Get", "ss", (NAMESPACE, "Name"), UNKNOWN_INTERFACE),
            (PATH, "Get", "ss", ("a.b", "Name"), UNKNOWN_INTERFACE),
            (PATH, "GetAll", "s", (NAMESPACE,), UNKNOWN_INTERFACE),
            (path, "Get", "ss", (NAMESPACE, "name"), UNKNOWN_PROPERTY),
            (path, "GetAll", "s", (MANAGER,), UNKNOWN_INTERFACE),
            (path, "Set", "ssv", (NAMESPACE, "Nothing", ("u", 1)), UNKNOWN_PROPERTY),
            (path_of("none"), "GetAll", "s", (NAMESPACE,), UNKNOWN_OBJECT),
        ]
        for place, member, signature, args, expected in asks:
            error = refused(root.call, place, PROPERTIES, member, signature, *args)
            assert error.name == expected, (place, member, args)


class TestObjects:
    """Each thing is at its place, and only there."""

    def test_peer_is_everywhere(self, root: Client) -> None:
        machine = Path("/etc/machine-id").read_text().strip()
        for path in ("/", "/org", PATH, "/some/where/else", path_of("none")):
            assert root.call(path, PEER, "Ping") == ()
            assert root.call(path, PEER, "GetMachineId") == (machine,)

    def test_managed_objects(self, root: Client) -> None:
        paths = {create(root, name) for name in ("a", "b")}
        [objects] = root.call(PATH, OBJECT_MANAGER, "GetManagedObjects")
        assert set(objects) == paths
        for path in paths:
            everything = root.call(path, PROPERTIES, "GetAll", "s", NAMESPACE)[0]
            assert objects[path] == {NAMESPACE: everything}
        for path in ("/", "/org", PATH + "/namespace", path_of("a"), path_of("none")):
            error = refused(root.call, path, OBJECT_MANAGER, "GetManagedObjects")
            assert error.name in (UNKNOWN_INTERFACE, UNKNOWN_OBJECT)

    @pytest.mark.parametrize(
        ("path", "interface", "member", "expected"),
        [
            ("/nowhere", MANAGER, "List", UNKNOWN_OBJECT),
            (PATH + "/", MANAGER, "List", None),  # no path at all: the bus hangs up or refuses
            (PATH + "/other", INTROSPECTABLE, "Introspect", UNKNOWN_OBJECT),
            (path_of("none"), NAMESPACE, "GetMounts", UNKNOWN_OBJECT),
            (path_of("x") + "/more", NAMESPACE, "GetMounts", UNKNOWN_OBJECT),
            (PATH + "/namespace/_78", NAMESPACE, "GetMounts", UNKNOWN_OBJECT),  # x, but spelled otherwise
            (PATH + "/namespace/_2e_2e", NAMESPACE, "GetMounts", UNKNOWN_OBJECT),
            ("/", MANAGER, "List", UNKNOWN_INTERFACE),
            (PATH, "a.b", "List", UNKNOWN_INTERFACE),
            (PATH, NAMESPACE, "GetMounts", UNKNOWN_INTERFACE),
            (path_of("x"), MANAGER, "List", UNKNOWN_INTERFACE),
            (PATH, MANAGER, "Nothing", UNKNOWN_METHOD),
            (PATH, MANAGER, "list", UNKNOWN_METHOD),
            (path_of("x"), NAMESPACE, "List", UNKNOWN_METHOD),
            (PATH, None, "Nothing", UNKNOWN_METHOD),
            (PATH, PEER, "Nothing", UNKNOWN_METHOD),
            ("/nowhere", PEER, "Nothing", UNKNOWN_METHOD),
        ],
    )
    def test_what_is_not_there(
        self, root: Client, path: str, interface: str | None, member: str, expected: str | None
    ) -> None:
        create(root, "x")
        if expected is None:
            with pytest.raises((ConnectionError, OSError, ValueError)):  # ValueError: jeepney itself
                root.call(path, interface, member)
            return
        assert refused(root.call, path, interface, member).name == expected

    def test_the_interface_may_be_left_out(self, root: Client) -> None:
        path = create(root, "x")
        assert root.call(PATH, None, "GetNamespace", "s", "x") == (path,)
        assert root.call(path, None, "GetProcesses") == ([],)
        assert root.call(PATH, None, "GetAll", "s", MANAGER)[0]["Count"] == ("u", 1)
        assert root.call("/", None, "Introspect")[0]
        assert root.call(PATH, None, "Ping") == ()

    def test_every_answer_has_the_signature_of_its_method(self, root: Client) -> None:
        create(root, "x")
        asks = {"List": (), "GetNamespace": ("x",), "Open": ("x",), "GetProcesses": (), "GetMounts": ()}
        for method in methods():
            if method.name in asks and method.interface in (MANAGER, NAMESPACE):
                path, args = (PATH, asks[method.name]) if method.interface == MANAGER else (path_of("x"), ())
                serial = root.send(path, method.interface, method.name, method.takes, *args)
                assert signature_of_reply(root, serial) == method.gives, method


def signature_of_reply(client: Client, serial: int) -> str:
    """The signature of the answer to a call."""
    while True:
        message = client.connection.receive(timeout=5)
        if message.header.fields.get(HeaderFields.reply_serial) == serial:
            return str(message.header.fields.get(HeaderFields.signature, ""))
