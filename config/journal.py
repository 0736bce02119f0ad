"""The journal of configuration revisions: when a changed configuration becomes known, and what it may not change.

Pure logic; the table is `config_revisions` in the ledger. A revision is journaled *before* it is used, with the
time from which it is known, so that a replay uses the same configuration for the same event, whatever the files say
by then.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from config.plans import Plan, PlanVersion
from config.revision import Configuration, Revision
from core.errors import ConfigError

HOUR_MS: Final = 3_600_000
_DIFFERENCE_LINES_MAX: Final = 40


def next_revision(
    history: Sequence[Revision], configuration: Configuration, redis_ms: int, watermark_ms: int
) -> Revision | None:
    """Return the revision to journal for this configuration, or None if the latest one is the same.

    `redis_ms` is the event server's time, `watermark_ms` the highest watermark that left a reader (0 if none did);
    both Unix milliseconds. The first revision counts from the beginning; a later one from the start of the hour after
    both times, and after its predecessor: what was read or booked by then keeps its configuration. Raises ConfigError
    if a plan version already in force was edited.
    """
    ordered = sorted(history, key=lambda revision: revision.known_from_ms)
    if not ordered:
        return Revision(configuration, 0)
    candidate = Revision(configuration, 0)
    latest = ordered[-1]
    if candidate.digest == latest.digest:
        return None
    now_ms = max(redis_ms, watermark_ms)
    problems = list(_edited_prices(ordered, configuration, now_ms))
    if problems:
        raise ConfigError(problems)
    hour_after_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
    return Revision(configuration, max(hour_after_ms, latest.known_from_ms + HOUR_MS))


def _edited_prices(ordered: Sequence[Revision], configuration: Configuration, now_ms: int) -> Iterator[str]:
    """Yield a problem for each plan version that was in force and is not what it was.

    The comparison is with the last revision that had the plan, so taking a plan out and in does not change it either.
    """
    last: dict[str, Plan] = {}
    for revision in ordered:
        last |= revision.plans
    for plan in configuration.plans:
        before = last.get(plan.id)
        if before is None:
            continue
        for index, version in enumerate(before.versions):
            if int(version.effective_from.timestamp() * 1000) > now_ms:
                continue
            present = plan.versions[index] if index < len(plan.versions) else None
            if present is None or _text(present) != _text(version):
                yield _problem(plan.id, index + 1, version, present)


def _text(version: PlanVersion) -> str:
    """Return the version's content as text with one field a line, in a fixed order."""
    plain = version.model_dump(mode="json", by_alias=True)
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2
    return orjson.dumps(plain, option=options).decode()


def _problem(plan: str, number: int, before: PlanVersion, after: PlanVersion | None) -> str:
    hint = "hint: leave it as it was, and add a version with a later effective_from"
    since = f"in force since {before.effective_from:%Y-%m-%dT%H:%M:%SZ}"
    if after is None:
        return f"plans[{plan}].versions[{number}]: was removed, but is {since}. {hint}"
    lines = [
        line
        for line in difflib.unified_diff(_text(before).splitlines(), _text(after).splitlines(), lineterm="", n=1)
        if not line.startswith(("---", "+++"))
    ]
    shown = lines[:_DIFFERENCE_LINES_MAX]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more lines")
    difference = "\n".join(f"    {line}" for line in shown)
    return f"plans[{plan}].versions[{number}]: was changed, but is {since}. {hint}. The difference:\n{difference}"
