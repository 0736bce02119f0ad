"""What decode needs to know of a revision, worked out once: rules, and the meters by event type."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import polars as pl

from config.meters import TAKES_VOIDS, Aggregation, Meter
from config.revision import Revision, Rules
from core.frames import EVENT_SCHEMA, QUANTITY
from core.reasons import CONTROL_TYPE

Path = tuple[str, ...]
"""Keys from `data` down to the property."""

NESTING_MAX: Final = 128
"""Objects and arrays may be nested this deep, the event itself included; deeper is malformed_json."""

ATTRIBUTE_CHARS_MAX: Final = 1024
"""For id, source and type."""

SUBJECT_CHARS_MAX: Final = 256

BLOCK_LINES: Final = 128
"""So many texts are parsed at once: a bad one makes this many be looked at one by one."""

WHITESPACE: Final = b" \t\r\n"
"""What JSON ignores; around an event it is not part of the event."""


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """One meter, paths taken apart. `dimensions` are sorted by name; `filters` are (path, allowed texts)."""

    id: str
    aggregation: Aggregation
    value: Path | None
    dimensions: tuple[tuple[str, Path], ...]
    filters: tuple[tuple[Path, frozenset[str]], ...]
    allow_negative: bool

    @classmethod
    def of(cls, meter: Meter) -> "MeterPlan":
        """Take a configured meter apart."""
        return cls(
            id=meter.id,
            aggregation=meter.aggregation,
            value=_path(meter.value) if meter.value is not None else None,
            dimensions=tuple((name, _path(meter.group_by[name])) for name in sorted(meter.group_by)),
            filters=tuple(
                (_path(meter.filter_path(name)), frozenset(allowed)) for name, allowed in sorted(meter.filter.items())
            ),
            allow_negative=meter.allow_negative,
        )

    @property
    def counts_unique(self) -> bool:
        """Tell whether the meter counts texts (column `u:`) instead of adding quantities (`v:`)."""
        return self.aggregation == "unique_count"

    @property
    def takes_voids(self) -> bool:
        """Tell whether an event can be taken back from this meter."""
        return self.aggregation in TAKES_VOIDS

    @property
    def value_column(self) -> str:
        """Return the name of the column that holds what an event brings."""
        return f"u:{self.id}" if self.counts_unique else f"v:{self.id}"

    @property
    def dimensions_column(self) -> str:
        """Return the name of the column that holds the series' dimensions."""
        return f"d:{self.id}"

    @property
    def unreadable_detail(self) -> str:
        """Return the detail of an exception: this meter could not read an accepted event."""
        what = "text, number or boolean" if self.counts_unique else "quantity"
        sign = "" if self.allow_negative or self.counts_unique else " that is not negative"
        return f"meter {self.id}: {'.'.join(('$', *(self.value or ())))} is not a {what}{sign}"

    @property
    def void_detail(self) -> str:
        """Return the detail of an exception: a void reached a meter that takes none."""
        return f"meter {self.id}: aggregation {self.aggregation} takes no voids"


def _path(text: str) -> Path:
    return tuple(text.split(".")[1:])


class RevisionPlan:
    """The rules and meters of one revision as decode uses them."""

    def __init__(self, revision: Revision) -> None:
        self.rules: Rules = revision.rules
        by_type: dict[str, list[MeterPlan]] = defaultdict(list)
        self.meters = tuple(MeterPlan.of(meter) for meter in revision.configuration.meters)
        for meter, plan in zip(revision.configuration.meters, self.meters, strict=True):
            if meter.event_type != CONTROL_TYPE:  # never metered
                by_type[meter.event_type].append(plan)
        self.meters_by_type: dict[str, tuple[MeterPlan, ...]] = {
            event_type: tuple(plans) for event_type, plans in by_type.items()
        }

    @cached_property
    def schema(self) -> dict[str, "pl.DataType | type[pl.DataType]"]:
        """Return the schema of decoded events: EVENT_SCHEMA, then `v:` or `u:` and `d:` of every meter."""
        schema: dict[str, pl.DataType | type[pl.DataType]] = dict(EVENT_SCHEMA)
        for meter in self.meters:
            schema[meter.value_column] = pl.String() if meter.counts_unique else QUANTITY
            schema[meter.dimensions_column] = pl.String()
        return schema


def is_out_of_time(event_us: int, entry_ms: int, rules: Rules) -> str | None:
    """Return `future_time` or `too_old` if the event's time is outside the rules; at the limit is inside."""
    if event_us > entry_ms * 1000 + rules.future_s * 1_000_000:
        return "future_time"
    if event_us < entry_ms * 1000 - rules.too_old_days * 86_400_000_000:
        return "too_old"
    return None
