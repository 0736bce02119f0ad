"""What `meterbridge doctor` says about the way to the ERP: caps on lines, mappings, ERPs that do not answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.doctor_checks import Finding, State
from config.entities import Entity
from config.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.revision import Revision
    from sinks.ledger.line_projection import Projection

SHARE_WARN_PERCENT = 80
GAPS_SHOWN_MAX = 5


def erp(settings: Settings) -> Iterator[Finding]:
    """Compare lines with the caps, name what is not mapped and ERPs that do not answer; nothing before `migrate`."""
    from sqlalchemy import exc, make_url  # noqa: PLC0415

    from sinks import ledger  # noqa: PLC0415
    from sinks.ledger import erp_status, line_projection, revisions  # noqa: PLC0415

    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return
    engine = ledger.connect(settings.ledger_url)
    try:
        history = revisions.load_history(engine)
        entities = {one.id: one for revision in history for one in revision.configuration.entities}
        for found in line_projection.project(engine):
            if found.entity in entities:
                yield _lines(settings, found, entities[found.entity])
        yield from _mappings(engine, history)
        for waiting in erp_status.waiting(engine):
            detail = f"does not answer since {waiting.since.isoformat(timespec='seconds')}: {waiting.cause}"
            fix = "the poster goes on trying; look at the ERP, its address and its credentials"
            yield Finding("erp", f"answers {waiting.entity}", "warn", detail, fix)
    except exc.DBAPIError:
        return  # the ledger's own check says what is wrong
    finally:
        engine.dispose()


def _mappings(engine: "Engine", history: "list[Revision]") -> Iterator[Finding]:
    """Tell per entity what is not mapped, or not in the ERP by the last pull."""
    from sinks.ledger import mapping_gaps, master_data  # noqa: PLC0415

    if not history:
        return
    latest = max(history, key=lambda revision: revision.known_from_ms)
    gaps = mapping_gaps.gaps(latest, master_data.load(engine))
    for entity in latest.configuration.entities:
        found = [gap for gap in gaps if gap.entity == entity.id]
        named = "; ".join(f"{gap.kind} {gap.name}: {gap.problem}" for gap in found[:GAPS_SHOWN_MAX])
        more = f" and {len(found) - GAPS_SHOWN_MAX} more" if len(found) > GAPS_SHOWN_MAX else ""
        detail = f"{named}{more}" if found else "everything that is named is mapped"
        fix = "see `meterbridge erp pull`; map it in the configuration, or create it in the ERP" if found else ""
        yield Finding("erp", f"mappings {entity.id}", "warn" if found else "ok", detail, fix)


def _lines(settings: Settings, found: "Projection", entity: Entity) -> Finding:
    from sinks.erp.registry import create  # noqa: PLC0415

    capabilities = create(settings, entity.erp).capabilities
    limits = entity.posting.line_limits
    lines_max = min(capabilities.lines_max, limits.lines) if limits.lines else capabilities.lines_max
    month_max = limits.lines_per_month or capabilities.lines_per_month_max
    detail = (
        f"{found.lines:,} in {found.hours:,} booked hours: {found.lines_per_month:,} a month"
        f"{f' of {month_max:,}' if month_max else ''}; largest posting {found.largest:,} of {lines_max:,}"
    )
    state: State = "ok"
    fix = ""
    if month_max and found.lines_per_month * 100 > month_max * SHARE_WARN_PERCENT:
        state = "fail" if found.lines_per_month > month_max else "warn"
        fix = "post less often (posting.frequency: daily) or with fewer dimensions (posting.line_grain)"
    elif found.largest > lines_max:
        state, fix = "warn", "choose a coarser posting.line_grain: one document has more lines than the ERP takes"
    return Finding("erp", f"lines {found.entity}", state, detail, fix)
