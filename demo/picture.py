# SPDX-License-Identifier: LGPL-2.1-or-later
"""The walkthrough as a picture of a terminal: its real commands and output, as an SVG file.

The temporary directory of a daemon that was started for it is written as /run/mountnsd, where the pins of an
installed one are, and pins of other daemons are left out.
"""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

_SECONDS = 120
_PLACE = re.compile(r"/\S*/mountnsd-demo-[^/\s]+/run\b")
_PINS = "/run/mountnsd/ns/"
# Sizes in pixels; a monospaced character is 0.6 of its size wide, near enough in all fonts.
_SIZE = 13
_WIDE = _SIZE * 0.602
_HIGH = 18
_MARGIN = 16
_COLUMNS = 96
_FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
_COLOURS = {
    "title": "#8ab4f8",
    "command": "#ffffff",
    "holds": "#81c995",
    "fails": "#f28b82",
    "output": "#bdc1c6",
}


def transcript() -> str:
    """What the walkthrough says.  Raises: subprocess.CalledProcessError where a step does not hold."""
    command = [sys.executable, "-m", "demo.walkthrough"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True)
    return result.stdout


def lines(said: str) -> list[tuple[str, str]]:
    """The lines of a transcript that are shown, each with what it is: one of _COLOURS."""
    shown: list[tuple[str, str]] = []
    all_lines = _PLACE.sub("/run/mountnsd", said).splitlines()[1:]
    for line, following in itertools.pairwise([*all_lines, ""]):
        if line.startswith("nsfs ") and not line.startswith(f"nsfs {_PINS}"):
            continue
        if line.startswith("# "):
            kind = "command"
        elif line.startswith("✓"):
            kind = "holds"
        elif line.startswith("✗"):
            kind = "fails"
        else:
            kind = "title" if following.startswith("# ") else "output"
        shown.append((kind, line))
    while shown and not shown[0][1]:
        shown.pop(0)
    return shown


def svg(shown: list[tuple[str, str]]) -> str:
    """The picture."""
    rows: list[tuple[str, str]] = []
    for kind, line in shown:
        rows += [(kind, line[at : at + _COLUMNS]) for at in range(0, max(len(line), 1), _COLUMNS)]
    width = round(_COLUMNS * _WIDE + 2 * _MARGIN)
    height = len(rows) * _HIGH + 2 * _MARGIN
    style = f"text{{font:{_SIZE}px {_FONT};white-space:pre}}.title,.command{{font-weight:bold}}"
    style += "".join(f".{kind}{{fill:{colour}}}" for kind, colour in _COLOURS.items())
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>A mount namespace is created, filled, left, found again and destroyed</title>",
        f"<style>{style}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#202124"/>',
    ]
    for number, (kind, line) in enumerate(rows):
        if line:
            y = _MARGIN + number * _HIGH + _SIZE
            out.append(
                f'<text x="{_MARGIN}" y="{y}" class="{kind}" xml:space="preserve">{escape(line)}</text>'
            )
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Write the picture to the file that is named."""
    if len(sys.argv) != 2:
        print("usage: python3 -m demo.picture FILE", file=sys.stderr)
        return 2
    Path(sys.argv[1]).write_text(svg(lines(transcript())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
