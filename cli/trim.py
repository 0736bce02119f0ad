"""`meterbridge trim`: remove from the streams what is durably booked and old enough."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from cli.context import context
from cli.output import emit

_MINUTES_MAX: Final = 366 * 24 * 60
MS_PER_MINUTE: Final = 60_000


def trim(
    keep_minutes: Annotated[
        int, typer.Option(min=1, max=_MINUTES_MAX, help="Keep this much before what is durably booked.")
    ] = 24 * 60,
) -> None:
    """Trim the streams behind the books; run it from time to time, while the flow runs.

    Only entries go that arrived `--keep-minutes` or more before the watermark up to which the flow's state is
    committed, its rows are in ClickHouse and its documents in the ledger. Entries not read never go, however old.
    """
    from sinks import ledger  # noqa: PLC0415  # keeps `--help` fast
    from sinks.ledger import progress  # noqa: PLC0415
    from sources import trimming  # noqa: PLC0415

    settings = context().settings
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        durable_ms = progress.watermark_ms(engine)
    finally:
        engine.dispose()
    before_ms = max(0, durable_ms - keep_minutes * MS_PER_MINUTE)
    removed = trimming.trim(settings.redis, before_ms) if before_ms else {}
    before = datetime.fromtimestamp(before_ms / 1000, UTC)
    emit(
        {"before_ms": before_ms, "durable_until_ms": durable_ms, "entries_removed": removed},
        f"Removed {sum(removed.values()):,} entries that arrived before {before:%Y-%m-%d %H:%M:%S} UTC."
        if before_ms
        else "Nothing is booked durably yet; nothing was removed.",
    )
