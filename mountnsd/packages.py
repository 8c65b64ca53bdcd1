# SPDX-License-Identifier: LGPL-2.1-or-later
"""The libraries, found where the distribution and the administrator keep them, without Python's module site.

What is installed starts by `python3 -I -S`.  site would take a third of an interpreter's start, and execute lines of
the `.pth` files and the sitecustomize of whoever put them there, as root.  Of what it does we need only that its
directories are searched, and `mountnsctl exec` not even that.

Out of scope: libraries that are only reached by a `.pth` file.

Source: the documentation of Python's module site.
"""

import sys


def find() -> None:
    """Have what is imported from now on looked for among the libraries too, where site did not see to that."""
    if not sys.flags.no_site:
        return
    import os
    import site

    sys.path += [place for place in site.getsitepackages() if place not in sys.path and os.path.isdir(place)]
