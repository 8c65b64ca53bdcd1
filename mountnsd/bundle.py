# SPDX-License-Identifier: LGPL-2.1-or-later
"""The starter as one piece of code, which the daemon sends to each of them.

To find its modules in files takes longer than to execute them.  It is the code of the daemon's own version, whatever
an upgrade has put in its place meanwhile.  Where Python itself was upgraded, the starter takes the files.

Out of scope: what the modules do.

Sources: the documentation of Python's modules marshal and importlib (get_code of its loaders).
"""

import _ctypes
import marshal
import sys
from types import CodeType

from mountnsd import starter

_SIZE = 8  # bytes that say how many follow
# In this order: each takes what it imports from those before it.  The last one has had them all imported here.
MODULES = ("", ".bare", ".becoming", ".passing", ".child", ".handover", ".starter")
# Executed in the other process, with `modules` and `places`.  What `from __future__` asks for has been done by then.
_LOADER = """
import sys
Module = type(sys)
sys.modules["__future__"] = Module("__future__")
sys.modules["__future__"].annotations = None
sys.path[:] = places
for name, file, code in modules:
    module = sys.modules[name] = Module(name)
    module.__file__ = file
    exec(code, module.__dict__)
"""


def made() -> bytes:
    """What a starter reads first.  Raises ImportError, OSError."""
    package = starter.__name__.partition(".")[0]
    modules = tuple(_module(package + name) for name in MODULES)
    # The only one of Python's own that may be in a file.
    file = getattr(_ctypes, "__file__", None)
    places = [file.rpartition("/")[0]] if file else []
    value = (compile(_LOADER, "<starter>", "exec"), {"modules": modules, "places": places})
    data = marshal.dumps(value)
    return len(data).to_bytes(_SIZE, "little") + data


def _module(name: str) -> tuple[str, str, CodeType]:
    """A module: its name, its file, its code.  Raises ImportError, OSError."""
    spec = sys.modules[name].__spec__
    load = getattr(spec.loader, "get_code", None) if spec is not None else None
    code = load(name) if load is not None else None
    if spec is None or spec.origin is None or not isinstance(code, CodeType):
        raise ImportError(f"there is no code of {name}", name=name)
    return name, spec.origin, code
