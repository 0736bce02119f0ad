"""What a benchmark hands back: one figure per case, and the median of repeated ones."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, e.g. 104000 `events/s`. `lowest` and `highest` are those of the repetitions."""

    bench: str
    case: str
    value: float
    unit: str
    lowest: float
    highest: float
    runs: int = 1

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def figure(bench: str, case: str, values: float | Sequence[float], unit: str) -> Figure:
    """Return the figure of one or several measurements; the value is their median."""
    measured = [values] if isinstance(values, int | float) else list(values)
    return Figure(bench, case, median(measured), unit, min(measured), max(measured), len(measured))


def from_plain(plain: Iterable[dict[str, Any]]) -> list[Figure]:
    """Return the figures that `to_plain` wrote."""
    return [Figure(**values) for values in plain]
