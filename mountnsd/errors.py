# SPDX-License-Identifier: LGPL-2.1-or-later
"""The errors a caller may see, and nothing else of what went wrong.

Every error has the D-Bus name under which it travels and a message that says
what happened, to what, and what to do next.  Whatever is not an `Error` here
is a fault of the daemon: it is logged in full and reaches the caller as a
bare `org.freedesktop.DBus.Error.Failed`.
"""

import errno as errno_module
import os

_OWN = "org.mountnsd1.Error."
_STANDARD = "org.freedesktop.DBus.Error."


class Error(Exception):
    """An answer to a caller: a D-Bus error name and one message.

    Arguments: message: what happened and what to do next, one line.
    """

    dbus_name = _STANDARD + "Failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Failed(Error):
    """Something that the caller can do nothing about; the log says more."""


class InvalidArgs(Error):
    dbus_name = _STANDARD + "InvalidArgs"


class AccessDenied(Error):
    dbus_name = _STANDARD + "AccessDenied"


class InteractiveAuthorizationRequired(Error):
    dbus_name = _STANDARD + "InteractiveAuthorizationRequired"


class LimitsExceeded(Error):
    dbus_name = _STANDARD + "LimitsExceeded"


class UnknownMethod(Error):
    dbus_name = _STANDARD + "UnknownMethod"


class UnknownObject(Error):
    dbus_name = _STANDARD + "UnknownObject"


class UnknownInterface(Error):
    dbus_name = _STANDARD + "UnknownInterface"


class UnknownProperty(Error):
    dbus_name = _STANDARD + "UnknownProperty"


class PropertyReadOnly(Error):
    dbus_name = _STANDARD + "PropertyReadOnly"


class NoSuchNamespace(Error):
    dbus_name = _OWN + "NoSuchNamespace"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no namespace '{name}'; 'mountnsctl list' shows those there are.")


class NamespaceExists(Error):
    dbus_name = _OWN + "NamespaceExists"

    def __init__(self, name: str, next_: str = "") -> None:
        next_ = next_ or ("take another name, or pass the option if_not_exists to use the one that is there.")
        super().__init__(f"A namespace '{name}' exists already; {next_}")


class NamespaceBusy(Error):
    dbus_name = _OWN + "NamespaceBusy"


class NamespaceStale(Error):
    dbus_name = _OWN + "NamespaceStale"


class NoSuchUser(Error):
    dbus_name = _OWN + "NoSuchUser"


class NoNamespaceForPID(Error):
    dbus_name = _OWN + "NoNamespaceForPID"


class _KernelError(Error):
    """A step that the kernel refused, with the errno it gave.

    Arguments: what: the work that failed; step: the system call or the step;
        errno: a positive errno; hint: what to do next.
    """

    def __init__(self, what: str, step: str, errno: int, hint: str = "") -> None:
        symbol = errno_module.errorcode.get(errno, str(errno))
        text = f"{what}: {step}: {os.strerror(errno)} ({symbol})."
        super().__init__(f"{text} {hint}" if hint else text)
        self.step = step
        self.errno = errno


class MountFailed(_KernelError):
    dbus_name = _OWN + "MountFailed"


class EnterFailed(_KernelError):
    dbus_name = _OWN + "EnterFailed"
