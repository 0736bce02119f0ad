"""Plots of a result as SVG, without a library. Pure: the same figures give the same text."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

from bench.figures import Figure

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 180, 24, 48
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")

Place = Callable[[float, float], tuple[float, float]]
Line = tuple[str, list[tuple[float, float]]]
"""A name and its points (x, y)."""


def growth(figures: Sequence[Figure]) -> str:
    """Return the plot of the bench `growth`: processor time per event over the size of what grows."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in figures:
        found = re.match(r"([\d,]+) (.+)", one.case)
        if one.bench == "growth" and one.unit == "us/event" and found:
            lines.setdefault(found[2], []).append((float(found[1].replace(",", "")), one.value))
    return plot(
        "Processor time of the engine job for each event", "size (logarithmic)", "us/event", list(lines.items())
    )


def plot(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """Return lines over a logarithmic x axis; the y axis begins at 0."""
    points = [point for _, line in lines for point in line]
    x_max = max((math.log10(x) for x, _ in points), default=1.0) or 1.0
    y_max = max((y for _, y in points), default=1.0) * 1.1

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return round(LEFT + across * math.log10(x) / x_max, 1), round(HEIGHT - BOTTOM - up * y / y_max, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="16" font-weight="bold">{title}</text>',
        *_axes(place, x_max, y_max),
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{x_label}</text>',
        f'<text x="8" y="{TOP + 12}">{y_label}</text>',
    ]
    for index, (name, line) in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        places = [place(x, y) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{TOP + 16 + 18 * index}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(place: Place, x_max: float, y_max: float) -> list[str]:
    parts = []
    for power in range(math.floor(x_max) + 1):
        x, y = place(10**power, 0)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x}" y2="{TOP}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{10**power:,}</text>')
    for quarter in range(5):
        value = y_max * quarter / 4
        x, y = place(1, value)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{value:.1f}</text>')
    return parts
