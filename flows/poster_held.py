"""What the poster does with held postings: a corrected mapping, an ERP that has what it lacked, a closed period."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from config.entities import Entity
from config.period_closes import PeriodCloses, period_named
from core.clock import Clock
from flows.poster_pace import backoff_s
from sinks.erp.port import ErpPort
from sinks.ledger import closes, grouping, held
from sinks.ledger.database import read
from sinks.ledger.erp_codes import MISSING_DIMENSION_MAPPING, MISSING_TAX_MAPPING, ErpNames
from sinks.ledger.leases import Lease
from sinks.ledger.postings import Stored
from sinks.ledger.supersede import in_period, supersede
from sinks.ledger.times import to_ms

HELD_PER_TURN_MAX: Final = 1_000
LOOK_AGAIN_FIRST_S: Final = 30.0
OTHER_COMPANY: Final = "other_company"
MAPPING_REASONS: Final = (
    OTHER_COMPANY,
    *("missing_account", "unknown_account", "missing_customer", "unknown_customer"),
    *(MISSING_DIMENSION_MAPPING, MISSING_TAX_MAPPING, "unknown_tax", "unknown_dimension", "missing_dimension"),
)
"""What a corrected configuration may mend."""
ERP_REASONS: Final = (
    *("unknown_account", "unknown_customer", "unknown_tax", "unknown_dimension"),
    *("missing_dimension", "closed_period"),
)
"""What a change in the ERP may mend: looked at again by preflight, with a growing wait, and after every pull."""
CLOSED: Final = "closed_period"


@dataclass
class HeldDesk:
    """One entity's held postings during one turn under its lease."""

    engine: Engine
    lease: Lease
    entity: Entity
    adapter: ErpPort
    clock: Clock
    chance: random.Random
    names: ErpNames
    lines_max: int
    may_ask: Callable[[], bool]
    """Takes the right to call the ERP once, if preflight is such a call."""

    def run(self, *, remap: bool, ask_erp: bool) -> int:
        """Release what can be released; return how many postings moved on.

        :param remap: the configuration may have changed since the last turn.
        :param ask_erp: the ERP may be called.
        :raises Unreachable: the ERP does not answer; nothing was decided.
        """
        moved = 0
        if remap:
            rows = held.held(self.engine, self.entity.id, MAPPING_REASONS)
            moved += sum(self._remap(row) for row in rows)
        if self.entity.close.erp_closed == "next_open":
            moved += self._move_periods()
        if ask_erp:
            now = self.clock.now()
            moved += self._look_again(held.due(self.engine, self.entity.id, ERP_REASONS, now, HELD_PER_TURN_MAX))
        return moved

    def _remap(self, row: Stored) -> int:
        """Send it again under the same key if the configuration maps it otherwise now."""
        mapped = grouping.remapped(row.posting, self.entity, self.names)
        if mapped.to_json() == row.text or grouping.hold_reason(mapped, "") == (row.reason, row.detail):
            return 0
        now = self.clock.now()
        return int(held.replace_content(self.engine, self.lease, mapped, self.lines_max, now))

    def _look_again(self, rows: list[Stored]) -> int:
        if not rows or not self.may_ask():
            return 0
        issues = {issue.key for issue in self.adapter.preflight([row.posting for row in rows])}
        now = self.clock.now()
        due = {
            row.key: to_ms(now) + int(1000 * backoff_s(row.lookups + 1, self.chance, first_s=LOOK_AGAIN_FIRST_S))
            for row in rows
            if row.key in issues
        }
        held.postpone(self.engine, self.lease, due)
        return held.free(self.engine, self.lease, [row.key for row in rows if row.key not in issues], now)

    def _move_periods(self) -> int:
        """Post into the first open period what the ERP refused, where the close is a recorded fact by now."""
        rows = list(held.held(self.engine, self.entity.id, (CLOSED,)))
        if not rows:
            return 0
        with read(self.engine) as connection:
            recorded = closes.load(connection)
        return sum(self._move_period(row, recorded) for row in rows)

    def _move_period(self, row: Stored, recorded: PeriodCloses) -> int:
        now = self.clock.now()
        period = period_named(self.entity, row.posting.accounting_period)
        if recorded.recorded(self.entity.id, period.name, to_ms(now)) != "close":
            return 0
        target = recorded.first_open(self.entity, period, now)
        moved = in_period(self.entity, row.posting, target.name)
        return int(supersede(self.engine, self.lease, row, moved, now))
