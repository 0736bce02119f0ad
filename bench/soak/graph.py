"""Draws the panels of a soak run as one SVG. Pure: numbers in, text out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 920
PANEL_HEIGHT: Final = 170
LEFT: Final = 70
RIGHT: Final = 210
TOP: Final = 46
GAP: Final = 52
COLOURS: Final = ("#0b6bcb", "#d9480f", "#2b8a3e", "#862e9c", "#5c5f66")
POINTS_MAX: Final = 400
"""Lines are thinned to this many points; the highest of each group is kept, so no peak is hidden."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel: a name and a value for each moment."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: a title with the unit, and its lines."""

    title: str
    lines: Sequence[Line]


def draw(title: str, minutes: Sequence[float], panels: Sequence[Panel]) -> str:
    """Return an SVG with the panels below each other, over minutes since the start."""
    height = TOP + len(panels) * (PANEL_HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(TOP + number * (PANEL_HEIGHT + GAP) + 16, minutes, panel)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(top: int, minutes: Sequence[float], panel: Panel) -> list[str]:
    wide = WIDTH - LEFT - RIGHT
    last = max(max(minutes, default=0.0), 1e-9)
    ceiling = nice_ceiling(max((max(line.values, default=0.0) for line in panel.lines), default=0.0))
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{escape(panel.title)}</text>']
    for step in range(5):
        value = ceiling * step / 4
        y = top + PANEL_HEIGHT * (1 - step / 4)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + wide}" y2="{y:.1f}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#495057">{number(value)}</text>')
    for step in range(7):
        x = LEFT + wide * step / 6
        label = f"{last * step / 6:.3g}"
        y = top + PANEL_HEIGHT + 16
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#495057">{label} min</text>')
    for place, line in enumerate(panel.lines):
        colour = COLOURS[place % len(COLOURS)]
        points = " ".join(
            f"{LEFT + wide * minute / last:.1f},{top + PANEL_HEIGHT * (1 - value / ceiling):.1f}"
            for minute, value in thinned(minutes, line.values)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        y = top + 14 + 18 * place
        parts.append(f'<rect x="{LEFT + wide + 14}" y="{y - 9}" width="12" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + wide + 32}" y="{y - 4}">{escape(line.name)}</text>')
    return parts


def thinned(minutes: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return at most `POINTS_MAX` points, of each group the highest."""
    group = max(1, -(-len(values) // POINTS_MAX))
    points = list(zip(minutes, values, strict=True))
    return [max(points[at : at + group], key=lambda point: point[1]) for at in range(0, len(points), group)]


def nice_ceiling(value: float) -> float:
    """Return the smallest of 1, 2, 4, 8 times a power of ten that is not below the value."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return next(power * factor for factor in (1, 2, 4, 8, 10) if power * factor >= value)


def number(value: float) -> str:
    """Return a short label of a value."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
