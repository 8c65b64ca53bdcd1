# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interfaces, read from their XML: the single source of what is served.

Source: D-Bus specification, "Introspection Data Format".
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

PEER = "org.freedesktop.DBus.Peer"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
MANAGER = "org.mountnsd1.Manager"
NAMESPACE = "org.mountnsd1.Namespace"
ALL = (PEER, INTROSPECTABLE, PROPERTIES, OBJECT_MANAGER, MANAGER, NAMESPACE)

_FILES = Path(__file__).with_name("interfaces")
_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)


@dataclass(frozen=True, slots=True)
class Method:
    """A method's signatures, all its arguments together."""

    takes: str
    gives: str


@dataclass(frozen=True, slots=True)
class Interface:
    """What one XML file says."""

    name: str
    methods: dict[str, Method]
    signals: dict[str, str]  # name to signature
    properties: dict[str, str]  # name to signature
    xml: str  # the <interface> element


def load(name: str) -> Interface:
    """Read the interface `name` from its file.  The files are part of the program: a fault in one is fatal."""
    text = (_FILES / f"{name}.xml").read_text("utf-8")
    element = ET.fromstring(text).find("interface")  # noqa: S314 - our own file
    if element is None or element.get("name") != name:
        raise ValueError(f"{name}.xml does not describe {name}")
    return Interface(
        name=name,
        methods={
            _name(method): Method(_arguments(method, "in"), _arguments(method, "out"))
            for method in element.findall("method")
        },
        signals={_name(signal): _arguments(signal, None) for signal in element.findall("signal")},
        properties={_name(item): item.get("type", "") for item in element.findall("property")},
        xml=_canonical(element),
    )


def load_all() -> dict[str, Interface]:
    """All interfaces, by name."""
    return {name: load(name) for name in ALL}


def node(interfaces: list[Interface], children: list[str]) -> str:
    """The introspection document of an object.  Arguments: children: names of the nodes below, plain ASCII."""
    lines = [interface.xml for interface in interfaces] + [
        f'  <node name="{child}"/>\n' for child in children
    ]
    return f"{_DOCTYPE}<node>\n{''.join(lines)}</node>\n"


def _name(element: ET.Element) -> str:
    return element.attrib["name"]


def _arguments(element: ET.Element, direction: str | None) -> str:
    return "".join(
        argument.attrib["type"]
        for argument in element.findall("arg")
        if direction is None or argument.get("direction") == direction
    )


def _canonical(element: ET.Element) -> str:
    element.tail = "\n"
    ET.indent(element, "  ", level=1)
    return "  " + ET.tostring(element, encoding="unicode")
