# SPDX-License-Identifier: LGPL-2.1-or-later
"""The libraries: where they are, without Python's module site, and what of them is left out.

What is installed starts by `python3 -I -S`.  site would take a third of an interpreter's start, and execute lines of
the `.pth` files and the sitecustomize of whoever put them there, as root.  Of what it does we need only that its
directories are searched, and `mountnsctl exec` not even that.

Of what its libraries would load, a root daemon loads only what it uses: code that is not there has no faults, and
takes no memory.  This must be asked for before they are imported.

Out of scope: libraries that are only reached by a `.pth` file.

Sources: the documentation of Python's module site; that of `import`, where None in sys.modules is a module that
is not there.
"""

import sys


def find() -> None:
    """Have what is imported from now on looked for among the libraries too, where site did not see to that."""
    if not sys.flags.no_site:
        return
    import os
    import site

    sys.path += [place for place in site.getsitepackages() if place not in sys.path and os.path.isdir(place)]


def leave_out(name: str) -> None:
    """Have a module that others import if it is there not be there."""
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def open_up(name: str) -> None:
    """Have the modules of a package be imported without what the package itself, its `__init__`, imports.

    Raises: ModuleNotFoundError.
    """
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    if name in sys.modules:
        return
    spec = PathFinder.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.modules[name] = module_from_spec(spec)
