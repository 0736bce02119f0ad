"""What the poster's log says of single postings: their keys, states and reasons, and never what is in them.

A key leads on: `meterbridge trace document KEY`, `meterbridge report postings`, and the ERP's own search.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from sinks.ledger import postings
from sinks.ledger.postings import Change

log = structlog.get_logger()

KEYS_SHOWN_MAX: Final = 10
"""Keys in one line; their number is in it too."""


def shown(keys: Sequence[str]) -> list[str]:
    """Return as many keys as a line has room for."""
    return list(keys[:KEYS_SHOWN_MAX])


def tell_waiting(entity: str, changes: Sequence[Change]) -> None:
    """Say which postings have just come to wait for a person, one line per state and reason."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for change in changes:
        if change.state in postings.ALARMS:
            found[change.state, change.reason].append(change.key)
    for (state, reason), keys in sorted(found.items()):
        log.warning(
            "Postings wait for a person.",
            entity=entity,
            state=state,
            reason=reason,
            postings=shown(keys),
            count=len(keys),
        )
