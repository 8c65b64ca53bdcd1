# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bus policy, the activation file and the polkit actions agree with the interfaces and with the design."""

import configparser
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

DBUS = Path(__file__).resolve().parents[2] / "dbus"
POLICY = DBUS / "org.mountnsd1.conf"
ACTIONS = DBUS / "org.mountnsd1.policy"
NAME = "org.mountnsd1"

# No property can be set, so that there is no reason for anybody to try.
NEVER = {("org.freedesktop.DBus.Properties", "Set")}

ADMIN = ("auth_admin", "auth_admin", "auth_admin")
DEFAULTS = {
    "org.mountnsd1.create": ("auth_admin", "auth_admin", "auth_admin_keep"),
    "org.mountnsd1.enter": ADMIN,
    "org.mountnsd1.enter-as": ADMIN,
    "org.mountnsd1.open": ADMIN,
    "org.mountnsd1.mount": ADMIN,
    "org.mountnsd1.destroy": ADMIN,
    "org.mountnsd1.list": ("yes", "yes", "yes"),
}


def methods() -> dict[tuple[str, str], bool]:
    """Every method of the interfaces that the daemon has, and whether it takes descriptors."""
    found = {}
    for path in DBUS.glob("*.xml"):
        for interface in ET.parse(path).iter("interface"):
            for method in interface.iter("method"):
                types = [arg.attrib["type"] for arg in method.iter("arg") if arg.attrib["direction"] == "in"]
                found[interface.attrib["name"], method.attrib["name"]] = any("h" in kind for kind in types)
    return found


def default_rules() -> list[ET.Element]:
    """The rules that hold for everybody, in their order."""
    [policy] = ET.parse(POLICY).findall("policy[@context='default']")
    return list(policy)


def allowed() -> list[ET.Element]:
    """What everybody may send."""
    return [rule for rule in default_rules() if rule.tag == "allow"]


def test_the_allowed_methods_are_those_of_the_interfaces() -> None:
    pairs = [(rule.attrib["send_interface"], rule.attrib["send_member"]) for rule in allowed()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == set(methods()) - NEVER


def test_only_what_takes_descriptors_may_carry_them() -> None:
    takes = {pair for pair, descriptors in methods().items() if descriptors}
    for rule in allowed():
        pair = rule.attrib["send_interface"], rule.attrib["send_member"]
        assert rule.get("max_fds") == (None if pair in takes else "0"), pair
    assert takes == {("org.mountnsd1.Manager", "Enter"), ("org.mountnsd1.Namespace", "Enter")}


def test_every_rule_names_the_daemon_and_nothing_unusual() -> None:
    known = {"send_destination", "send_interface", "send_member", "max_fds"}
    for rule in allowed():
        assert rule.attrib["send_destination"] == NAME
        assert set(rule.attrib) <= known


def test_everything_else_is_denied_first() -> None:
    denials = [rule.attrib for rule in default_rules() if rule.tag == "deny"]
    assert denials == [{"own": NAME}, {"send_destination": NAME}]
    assert [rule.tag for rule in default_rules()][: len(denials)] == ["deny", "deny"]


def test_only_root_owns_the_name() -> None:
    policies = ET.parse(POLICY).findall("policy")
    owners = [policy.attrib for policy in policies if policy.find("allow[@own]") is not None]
    assert owners == [{"user": "root"}]
    assert len(policies) == 2


def test_activation_is_left_to_systemd() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DBUS / "org.mountnsd1.service.in")
    assert dict(parser["D-BUS Service"]) == {
        "Name": NAME,
        "Exec": "/bin/false",
        "User": "root",
        "SystemdService": "mountnsd.service",
    }


def test_actions_and_defaults() -> None:
    found = {}
    for action in ET.parse(ACTIONS).iter("action"):
        defaults = [action.findtext(f"defaults/allow_{who}") for who in ("any", "inactive", "active")]
        found[action.attrib["id"]] = tuple(defaults)
        assert (action.findtext("description") or "").strip()
        assert (action.findtext("message") or "").strip().endswith(".")
    assert found == DEFAULTS


def test_no_action_implies_another_or_is_kept_where_a_namespace_is_named() -> None:
    text = ACTIONS.read_text()
    assert "<annotate" not in text
    keeping = {action for action, defaults in DEFAULTS.items() if any("keep" in word for word in defaults)}
    assert keeping == {"org.mountnsd1.create"}


def test_there_is_no_property_to_set() -> None:
    access = {p.attrib["access"] for path in DBUS.glob("*.xml") for p in ET.parse(path).iter("property")}
    assert access == {"read"}


@pytest.mark.parametrize("path", sorted(DBUS.glob("*.[cpx]*")), ids=lambda path: str(path.name))
def test_well_formed(path: Path) -> None:
    result = subprocess.run(
        ["xmllint", "--noout", "--nonet", str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 0, result.stderr


def test_actions_match_polkits_document_type() -> None:
    definition = Path("/usr/share/polkit-1/policyconfig-1.dtd")
    if not definition.exists():
        pytest.skip("polkit's document type definition is not installed")
    command = ["xmllint", "--noout", "--nonet", "--dtdvalid", str(definition), str(ACTIONS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 0, result.stderr
