# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers and strings of a body, read in one go.

A body may have thousands of them, and others wait while it is read: the D-Bus
library takes four times as long.  Out of scope: all other types (bus.py).

Source: D-Bus specification, "Marshaling".
"""

import struct


class Reading:
    """A part of a reader of bodies.

    Attributes: buf: the whole body; offset: how far it is read.
    """

    offset: int
    buf: bytearray

    def begin(self, body: bytes, little_endian: bool) -> None:
        """Read this from now on."""
        self.buf = bytearray(body)
        self.number = struct.Struct("<I" if little_endian else ">I")

    def read_uint32(self, _: object = None) -> int:
        """Raises struct.error where the body ends before."""
        start = self.offset + -self.offset % 4
        (number,) = self.number.unpack_from(self.buf, start)
        self.offset = start + 4
        return int(number)

    def read_string(self, _: object = None) -> str:
        """Raises ValueError, struct.error, IndexError for what is none."""
        length = self.read_uint32()
        start = self.offset
        end = start + length
        if self.buf[end] != 0 or 0 in self.buf[start:end]:
            raise ValueError("a string ends with its only NUL")
        self.offset = end + 1
        return self.buf[start:end].decode()
