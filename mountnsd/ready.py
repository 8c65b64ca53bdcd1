# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arrays whose elements were marshalled before: an answer about ten thousand objects is put together in a moment.

Out of scope: the marshalling of an element (bus.py).
Source: D-Bus specification, "Marshaling (Wire Format)".
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_ALIGNMENT = 8  # of dictionary entries, and of a message's body
_HEAD = 8  # bytes of an empty array of these: its length, and the padding up to its first element


@dataclass(frozen=True, slots=True)
class Ready:
    """An array of dictionary entries as the only argument of an answer.

    elements: gives those that there are at that moment, each as `element` has it.
    """

    elements: Callable[[], Iterable[bytes]]


def element(array: bytes) -> bytes:
    """The element of a marshalled array that has only one."""
    return bytes(array[_HEAD:])


def fill(message: bytearray, body: object) -> bytes:
    """A message as it leaves: with the elements in place, where its body is to be a `Ready`.

    Arguments: message: little endian; with an empty array of dictionary entries in place of a `Ready`.
    """
    if not isinstance(body, Ready):
        return bytes(message)
    filled = bytearray(message)
    start = len(filled)
    for one in body.elements():
        filled += bytes(-len(filled) % _ALIGNMENT)
        filled += one
    struct.pack_into("<I", filled, start - _HEAD, len(filled) - start)
    struct.pack_into("<I", filled, 4, len(filled) - start + _HEAD)
    return bytes(filled)
