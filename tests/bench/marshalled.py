# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a D-Bus library needs to marshal the answers of the daemon: a program of its own, which prints ms as JSON.

It is run once with dbus-next and once with dbus-fast, its maintained fork, by the interpreter that has both.

Usage: marshalled.py LIBRARY NAMESPACES TIMES
"""

import importlib
import json
import sys
import time
from statistics import median
from typing import Any


def _ms(module: Any, signature: str, body: list[Any], times: int) -> float:
    found = []
    for _ in range(times):
        message = module.Message(
            message_type=module.MessageType.METHOD_RETURN,
            reply_serial=1,
            destination=":1.1",
            signature=signature,
            body=body,
            serial=1,
        )
        begun = time.perf_counter_ns()
        message._marshall(False)
        found.append((time.perf_counter_ns() - begun) / 1e6)
    return median(found)


def main() -> None:
    """Measure one library."""
    library, count, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    module = importlib.import_module(library)
    prefix = "/org/mountnsd1/namespace/"
    rows = [[f"ns-{one}", f"{prefix}ns_2d{one}", 4026532000 + one, 0, 0] for one in range(count)]
    figures = {
        "version": getattr(importlib.import_module(f"{library}.__version__"), "__version__", "unknown"),
        "list_ms": _ms(module, "a(sotut)", [rows], times),
        "small_ms": _ms(module, "o", [prefix + "demo"], 50 * times),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
