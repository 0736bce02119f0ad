"""What a run of the poster did, for programs and people."""

from dataclasses import asdict, dataclass, field
from typing import Any

from sinks.ledger import postings


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of the poster did. Counts are postings."""

    posted: int = 0
    created: int = 0
    by_state: dict[str, int] = field(default_factory=dict)
    entities_elsewhere: tuple[str, ...] = ()
    """Entities another poster is at work on."""
    entities_waiting: tuple[str, ...] = ()
    """Entities whose ERP does not answer."""
    states_unwritten: int = 0
    """Document states ClickHouse has not got yet."""

    @property
    def undelivered_for_error(self) -> int:
        """Return how many postings are not delivered though they should be."""
        failed = (
            postings.PENDING,
            postings.SUBMITTED,
            postings.ACCEPTED,
            postings.UNKNOWN,
            postings.HELD,
            postings.CONFLICT,
            postings.DUPLICATED,
        )
        return sum(self.by_state.get(state, 0) for state in failed)

    @property
    def succeeded(self) -> bool:
        """Tell whether everything that could be delivered is."""
        return not self.undelivered_for_error and not self.entities_elsewhere

    def to_plain(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return asdict(self) | {
            "undelivered_for_error": self.undelivered_for_error,
            "succeeded": self.succeeded,
        }

    def to_text(self) -> str:
        """Return the summary for a person."""
        states = ", ".join(f"{state.lower()} {count}" for state, count in sorted(self.by_state.items())) or "none yet"
        rows = [f"posted {self.posted} postings ({self.created} made of new documents); all postings: {states}"]
        if self.undelivered_for_error:
            rows.append(f"{self.undelivered_for_error} postings are not delivered: see `meterbridge report postings`")
        if self.entities_elsewhere:
            rows.append(f"another poster is at work on: {', '.join(self.entities_elsewhere)}")
        if self.entities_waiting:
            rows.append(f"the ERP does not answer for: {', '.join(self.entities_waiting)}; the poster goes on trying")
        if self.states_unwritten:
            rows.append(f"{self.states_unwritten} posting states wait for ClickHouse")
        return "\n".join(rows)
