"""The journal of configuration revisions: when a changed configuration becomes known.

Pure logic; the table is `config_revisions` in the ledger. A revision is journaled *before* it is used, with the
time from which it is known, so that a replay uses the same configuration for the same event, whatever the files say
by then.
"""

from collections.abc import Sequence
from typing import Final

from config.journal_rules import Past, refusals
from config.revision import Configuration, Revision
from core.errors import ConfigError

HOUR_MS: Final = 3_600_000


def next_revision(
    history: Sequence[Revision], configuration: Configuration, redis_ms: int, watermark_ms: int
) -> Revision | None:
    """Return the revision to journal for this configuration, or None if the latest one is the same.

    `redis_ms` is the event server's time, `watermark_ms` the highest watermark that left a reader (0 if none did);
    both Unix milliseconds. The first revision counts from the beginning; a later one from the start of the hour after
    both times, and after its predecessor: what was read or booked by then keeps its configuration. Raises ConfigError
    with everything it changes that books were made by (`config.journal_rules`).
    """
    ordered = sorted(history, key=lambda revision: revision.known_from_ms)
    if not ordered:
        return Revision(configuration, 0)
    latest = ordered[-1]
    # As this release reads the journal: fields it knows and the text lacks have their defaults.
    if Revision(configuration, 0).text == Revision(latest.configuration, 0).text:
        return None
    now_ms = max(redis_ms, watermark_ms)
    refused = refusals(Past(tuple(ordered), now_ms), configuration)
    if refused:
        raise ConfigError([refusal.text for refusal in refused])
    hour_after_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
    return Revision(configuration, max(hour_after_ms, latest.known_from_ms + HOUR_MS))
