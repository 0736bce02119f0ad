"""Meters: which events count, and how (contract, design 3.1)."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from config.base import Identifier, Model

Aggregation = Literal["count", "sum", "max", "min", "latest", "unique_count", "weighted_sum"]

TAKES_VOIDS: Final[frozenset[Aggregation]] = frozenset({"count", "sum", "weighted_sum"})
"""Aggregations from which an event can be taken back."""

LEVEL_EXPIRY_MAX: Final = timedelta(days=3660)

Path = Annotated[str, StringConstraints(pattern=r"^\$(\.[A-Za-z_][A-Za-z0-9_-]*){1,8}$")]
"""A path into `data`: `$.name` or `$.outer.inner`."""


class Meter(Model):
    """One meter. `group_by` maps dimension names to paths; `filter` keeps only the listed dimension values."""

    id: Identifier
    event_type: str = Field(min_length=1, max_length=256)
    aggregation: Aggregation
    value: Path | None = None
    group_by: dict[Identifier, Path] = Field(default_factory=dict, max_length=16)
    filter: dict[Identifier, tuple[str, ...]] = Field(default_factory=dict, max_length=16)
    allow_negative: bool = False
    level_expiry: timedelta | None = None
    """`weighted_sum`: a level that is not renewed for so long ends; without it a level holds for ever."""

    @model_validator(mode="after")
    def _check(self) -> "Meter":
        if self.aggregation == "count" and self.value is not None:
            message = "count takes no value: remove `value`, or use sum"
            raise ValueError(message)
        if self.aggregation != "count" and self.value is None:
            message = f"{self.aggregation} needs `value`, a path such as $.tokens"
            raise ValueError(message)
        if self.level_expiry is not None:
            if self.aggregation != "weighted_sum":
                message = f"level_expiry is for weighted_sum: {self.aggregation} holds no level"
                raise ValueError(message)
            if not timedelta(0) < self.level_expiry <= LEVEL_EXPIRY_MAX:
                message = f"level_expiry must be more than nothing and at most P{LEVEL_EXPIRY_MAX.days}D"
                raise ValueError(message)
        return self

    def filter_path(self, dimension: str) -> str:
        """Return the path a filter looks at: the dimension's if it is in `group_by`, else `$.<dimension>`."""
        return self.group_by.get(dimension, f"$.{dimension}")
