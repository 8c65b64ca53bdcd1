# SPDX-License-Identifier: LGPL-2.1-or-later
"""The medians as a picture: for each operation a line for each who does it, from few to many, on a logarithmic scale.

It takes the colours of the page around it, light or dark.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from .table import figure

# Sizes in pixels.
_WIDTH = 860
_LEFT = 330  # of the scale
_RIGHT = 130  # for the figures
_ROW = 20
_HEAD = 26
_TOP = 34
_BOTTOM = 34
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_STYLE = """\
text{font:12px %s;fill:#1f2328}.title{font-weight:600}.dim{fill:#59636e}
.grid{stroke:#59636e;stroke-opacity:.25}.ours{stroke:#0969da;fill:#0969da}.peer{stroke:#bc4c00;fill:#bc4c00}
.bare{stroke:#59636e;fill:#59636e}line.ours,line.peer,line.bare{stroke-width:3}circle{stroke-width:2}
circle.few{fill:#ffffff}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.dim{fill:#9198a1}.grid{stroke:#9198a1}
.ours{stroke:#58a6ff;fill:#58a6ff}.peer{stroke:#f0883e;fill:#f0883e}.bare{stroke:#9198a1;fill:#9198a1}
circle.few{fill:#0d1117}}
"""
KINDS = ("ours", "peer", "bare")


@dataclass(frozen=True)
class Line:
    """One who does an operation.  Attributes: kind: one of KINDS; few, many: ms, None where it was not measured."""

    who: str
    kind: str
    few: float | None
    many: float | None

    def known(self) -> list[float]:
        """The figures that there are."""
        return [value for value in (self.few, self.many) if value]


class _Scale:
    """Where a figure is on the picture; from one power of ten to another."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)

    def at(self, value: float) -> float:
        """The x of a figure."""
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def marks(self) -> Iterator[float]:
        """Every power of ten."""
        return (10.0**power for power in range(self.low, self.high + 1))


def svg(title: str, groups: Sequence[tuple[str, Sequence[Line]]], few: int, many: int) -> str:
    """The picture.

    Arguments: groups: each operation with its lines; few, many: the numbers of namespaces.
    """
    shown = [(name, [line for line in lines if line.known()]) for name, lines in groups]
    shown = [(name, lines) for name, lines in shown if lines]
    scale = _Scale([value for _, lines in shown for line in lines for value in line.known()])
    height = _TOP + sum(_HEAD + _ROW * len(lines) for _, lines in shown) + _BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE % _FONT}</style>",
        *_grid(scale, height),
        *_legend(few, many),
    ]
    y = _TOP
    for name, lines in shown:
        y += _HEAD
        out.append(f'<text class="title" x="12" y="{y - 6}">{escape(name)}</text>')
        for line in lines:
            out += _drawn(line, scale, y)
            y += _ROW
    return "\n".join([*out, "</svg>", ""])


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for mark in scale.marks():
        x = scale.at(mark)
        yield f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{height - _BOTTOM}"/>'
        yield f'<text class="dim" x="{x}" y="{height - 14}" text-anchor="middle">{mark:g} ms</text>'


def _legend(few: int, many: int) -> Iterator[str]:
    for x, kind, label in ((_LEFT, "few", few), (_LEFT + 170, "many", many)):
        yield f'<circle class="bare {kind}" cx="{x}" cy="18" r="4.5"/>'
        yield f'<text class="dim" x="{x + 10}" y="22">at {label:,} namespaces</text>'


def _drawn(line: Line, scale: _Scale, top: int) -> Iterator[str]:
    y = top + _ROW // 2 - 2
    yield f'<text class="dim" x="28" y="{y + 4}">{escape(line.who)}</text>'
    if line.few and line.many:
        yield f'<line class="{line.kind}" x1="{scale.at(line.few)}" y1="{y}" x2="{scale.at(line.many)}" y2="{y}"/>'
    for value, kind in ((line.many, "many"), (line.few, "few")):
        if value:
            yield f'<circle class="{line.kind} {kind}" cx="{scale.at(value)}" cy="{y}" r="4.5"/>'
    words = " → ".join(figure(value) for value in line.known())
    yield f'<text class="dim" x="{_WIDTH - 12}" y="{y + 4}" text-anchor="end">{words} ms</text>'
