# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors: each travels under the contract's name, and no message tells of the code."""

import errno
import inspect

import pytest

from mountnsd import errors

CONTRACT = {
    "org.mountnsd1.Error.": {
        "NoSuchNamespace",
        "NamespaceExists",
        "NamespaceBusy",
        "NamespaceStale",
        "NoSuchUser",
        "NoNamespaceForPID",
        "MountFailed",
        "EnterFailed",
    },
    "org.freedesktop.DBus.Error.": {
        "InvalidArgs",
        "AccessDenied",
        "InteractiveAuthorizationRequired",
        "LimitsExceeded",
        "UnknownMethod",
        "UnknownObject",
        "UnknownInterface",
        "UnknownProperty",
        "PropertyReadOnly",
        "Failed",
    },
}
CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.Error) and not kind.__name__.startswith("_") and kind is not errors.Error
]


def made(kind: type[errors.Error]) -> errors.Error:
    """One of each."""
    if issubclass(kind, errors.MountFailed | errors.EnterFailed):
        return kind("Cannot do it", "mount", errno.EACCES, "Try something else.")
    return kind("a")


def test_each_has_the_name_of_the_contract() -> None:
    names = {kind.dbus_name for kind in CLASSES}
    assert names == {prefix + name for prefix, known in CONTRACT.items() for name in known}
    for kind in CLASSES:
        assert kind.dbus_name.rpartition(".")[2] == kind.__name__


@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_is_one_line_and_tells_nothing_of_the_code(kind: type[errors.Error]) -> None:
    error = made(kind)
    assert str(error) == error.message
    assert error.message.isprintable()
    for trace in (".py", "Traceback", "/usr/lib/python", __file__, "mountnsd/"):
        assert trace not in error.message


def test_what_is_missing_and_what_is_there_say_what_to_do_next() -> None:
    assert errors.NoSuchNamespace("a").message.startswith("There is no namespace 'a'; ")
    assert "mountnsctl list" in errors.NoSuchNamespace("a").message
    assert "if_not_exists" in errors.NamespaceExists("a").message


@pytest.mark.parametrize("kind", [errors.MountFailed, errors.EnterFailed])
def test_what_the_kernel_refused_names_the_step_and_the_errno(
    kind: type[errors.MountFailed] | type[errors.EnterFailed],
) -> None:
    error = kind("Cannot go in", "setns", errno.EPERM, "Be root.")
    assert error.message == "Cannot go in: setns: Operation not permitted (EPERM). Be root."
    assert (error.step, error.errno) == ("setns", errno.EPERM)
    assert kind("Cannot go in", "setns", errno.EPERM).message.endswith("(EPERM).")
    assert "(12345)" in kind("Cannot go in", "setns", 12345).message
