"""What a run of the whole flow is configured with: meters, prices and rules, and how its second revision differs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from config.revision import Configuration
from tests.operators.rate_support import ENTITY, customer, version
from tests.simulation.fate import Fate

METERS: Final[dict[str, dict[str, Any]]] = {
    "tokens": {"event_type": "t", "aggregation": "sum", "value": "$.tokens", "group_by": {"model": "$.model"}},
    "calls": {"event_type": "t", "aggregation": "count"},
    "users": {"event_type": "t", "aggregation": "unique_count", "value": "$.user"},
    "peak": {"event_type": "t", "aggregation": "max", "value": "$.tokens", "group_by": {"user": "$.user"}},
    "fares": {
        "event_type": "t",
        "aggregation": "sum",
        "value": "$.tokens",
        "per_event": {"rate_percent": "12.5", "minimum": "0.03", "maximum": "0.4"},
    },
    "level": {"event_type": "u", "aggregation": "latest", "value": "$.level", "group_by": {"user": "$.user"}},
    "seats": {
        "event_type": "u",
        "aggregation": "weighted_sum",
        "value": "$.level",
        "group_by": {"user": "$.user"},
        "level_expiry": "PT1H",
    },
}
CHARGES: Final[list[dict[str, Any]]] = [
    {
        "id": "in",
        "meter": "tokens",
        "model": "graduated",
        "tiers": [
            {"up_to": "7", "unit_amount": "0.115", "flat_amount": "0.1"},
            {"up_to": None, "unit_amount": "0.0333"},
        ],
    },
    {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.005", "minimum": "0.33"},
    {
        "id": "users",
        "meter": "users",
        "model": "volume",
        "tiers": [{"up_to": "2", "unit_amount": "1.25"}, {"up_to": None, "unit_amount": "0.995"}],
    },
    {"id": "fares", "meter": "fares", "model": "per_unit", "unit_amount": "1"},
    {"id": "seats", "meter": "seats", "model": "per_unit", "unit_amount": "0.00013"},
    {"id": "fee", "model": "flat", "amount": "9.99"},
]
ACCOUNTS: Final = {
    "unbilled_receivable": "1150",
    "usage_revenue": "4001",
    "subscription_revenue": "4002",
    "shortfall_revenue": "4003",
}
Customers = dict[str, tuple[str, ...]]
"""Subjects by customer."""
CUSTOMERS: Final[Customers] = {"acme": ("acme", "acme-eu"), "beta": ("beta",)}
NEWCOMER: Final[Customers] = {"nobody-inc": ("nobody",)}
"""A subject whose usage has no price before the second revision."""


@dataclass(frozen=True)
class Span:
    """When events are sent, and when everything is sealed although the server's clock was an hour ahead."""

    start: datetime
    last: datetime
    end: datetime
    pauses_s: tuple[float, ...]


HOURS: Final = Span(
    datetime(2024, 1, 31, 20, 30, tzinfo=UTC),
    datetime(2024, 2, 1, 2, 30, tzinfo=UTC),
    datetime(2024, 2, 1, 5, 30, tzinfo=UTC),
    (0.01, 1.0, 15.0, 61.0, 700.0, 2400.0),
)
"""January ends within it; its period end seals at 02:01."""
DAYS: Final = Span(
    datetime(2024, 1, 30, 20, 30, tzinfo=UTC),
    datetime(2024, 2, 2, 12, 0, tzinfo=UTC),
    datetime(2024, 2, 2, 16, 0, tzinfo=UTC),
    (1.0, 61.0, 2400.0, 30_000.0, 60_000.0),
)
"""Duplicates leave the horizon of a day within it."""


@dataclass(frozen=True)
class Variant:
    """What one run is configured with. `second_rules` is empty if the second revision changes none."""

    meters: tuple[str, ...]
    rules: dict[str, Any]
    span: Span
    sends_voids: bool
    has_second: bool
    second_rules: dict[str, Any] = field(default_factory=dict)

    @property
    def oracle_knows(self) -> bool:
        """Tell whether the naive oracle knows the rules of this run; an undisturbed run is compared with anyway."""
        return not self.second_rules and "series_per_tenant_minute_max" not in self.rules

    @property
    def charges(self) -> list[dict[str, Any]]:
        """Return the charges whose meters there are."""
        return [charge for charge in CHARGES if charge.get("meter", self.meters[0]) in self.meters]

    def customers(self, *, second: bool) -> Customers:
        """Return the customers of the first or the second revision."""
        return CUSTOMERS | (NEWCOMER if second else {})

    def configuration(self, *, second: bool) -> Configuration:
        """Return the configuration of the first or the second revision."""
        subjects = self.customers(second=second)
        plain: dict[str, Any] = {
            "meters": [{"id": name} | METERS[name] for name in self.meters],
            "plans": [{"id": "p", "versions": [version(*self.charges)]}],
            "entities": [ENTITY | {"accounts": ACCOUNTS}],
            "customers": [customer(name, subjects=list(own)) for name, own in subjects.items()],
            "rules": self.rules | (self.second_rules if second else {}),
        }
        return Configuration.model_validate(plain)


def draw(fate: Fate) -> Variant:
    """Return the variant of a run."""
    chance = fate.random
    rules: dict[str, Any] = {"books_open_at": "2024-01-01T00:00:00Z", "grace_s": chance.choice((60, 60, 0, 300))}
    takes_days = chance.random() < 0.2
    if takes_days:
        rules |= {"dedupe_horizon_days": 1, "too_old_days": 2}
    if chance.random() < 0.2:
        rules |= {"series_per_tenant_minute_max": 1, "level_changes_per_meter_max": chance.choice((2, 100))}
    second_rules: dict[str, Any] = {}
    if chance.random() < 0.3:
        second_rules = {"grace_s": chance.choice((0, 60, 600)), "future_s": chance.choice((60, 300))}
    return Variant(
        meters=tuple(sorted(chance.sample(sorted(METERS), k=chance.randrange(2, 5)))),
        rules=rules,
        span=DAYS if takes_days else HOURS,
        sends_voids=not takes_days,
        has_second=(has_second := chance.random() < 0.3),
        second_rules=second_rules if has_second else {},
    )
