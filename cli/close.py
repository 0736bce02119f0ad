"""`meterbridge close`: seal an accounting period."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, note, progress, table
from core.errors import Disagreement, InvalidRequest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flows.sealing import Outcome

_ITEMS_SHOWN_MAX = 5


def close(
    period: Annotated[str, typer.Option(help="The accounting period, YYYY-MM.")],
    entity: Annotated[str, typer.Option(help="Only this entity. Default: all.")] = "",
    accept: Annotated[
        bool, typer.Option("--accept-exceptions", help="Seal over what is open and may be; it is recorded.")
    ] = False,
    who: Annotated[str, typer.Option(help="Who closes. Default: the user of this terminal.")] = "",
    reason: Annotated[str, typer.Option(help="Why; needed with --accept-exceptions.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and show what would be sealed.")] = False,
) -> None:
    """Check that a period is complete, list what is open, and freeze a signed summary of everything in it.

    Nothing is sealed unless everything holds, or what does not is accepted. `meterbridge verify --period` proves later
    that nothing changed. The exit code is 0 only if the period is (or with --dry-run could be) sealed.
    """
    from cli.erp import who as person  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows.sealing import Decision, signing_key  # noqa: PLC0415
    from flows.sealing import close as run  # noqa: PLC0415
    from queries.closing import find_period  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    if accept and not reason.strip():
        message = "--accept-exceptions needs --reason TEXT: say why it may be closed like that; it is recorded"
        raise InvalidRequest(message)
    decision = Decision(person(who), reason.strip(), accept)
    outcomes = []
    with open_stores(context().settings) as stores, progress("Closing", None) as advance:
        if not dry_run:
            signing_key(stores)
        latest = stores.history.latest.configuration.entities
        periods = [find_period(stores, name, period) for name in ([entity] if entity else [one.id for one in latest])]
        for one in periods:
            now = SystemClock().now()
            outcomes.append(run(stores, one, decision, now, dry_run=dry_run, done=lambda _name: advance(1)))
    emit(
        {"period": period, "dry_run": dry_run, "entities": [one.to_plain() for one in outcomes]},
        *(part for one in outcomes for part in _parts(one)),
    )
    _judge(outcomes, dry_run=dry_run, accept=accept)


def _judge(outcomes: "list[Outcome]", *, dry_run: bool, accept: bool) -> None:
    waiting = [one for one in outcomes if one.seal is None and one.open_findings]
    if waiting:
        hard = [one for outcome in waiting for one in outcome.open_findings if not one.acceptable]
        names = ", ".join(one.period.entity for one in waiting)
        if not hard and dry_run and accept:
            return
        what = (
            "first mend: " + "; ".join(sorted({one.name for one in hard}))
            if hard
            else "mend what is open, or close over it with --accept-exceptions --who NAME --reason TEXT"
        )
        message = f"{waiting[0].period.accounting.name} of {names} is not sealed: {what}"
        raise Disagreement(message)
    if dry_run and any(one.seal is None for one in outcomes):
        note("Nothing was recorded: run it again without --dry-run.")


def _parts(outcome: "Outcome") -> "list[RenderableType]":
    period = outcome.period
    title = f"{period.entity}, {period.accounting.name}"
    parts: list[RenderableType] = []
    if outcome.findings:
        rows = [(one.name, "yes" if one.holds else _said(one.acceptable), one.detail) for one in outcome.findings]
        parts.append(table(title, ("check", "holds", "detail"), rows))
    for one in outcome.open_findings:
        for item in one.items[:_ITEMS_SHOWN_MAX]:
            parts.append(f"  {one.name}: " + ", ".join(f"{name} {value}" for name, value in item.items()))
        if len(one.items) > _ITEMS_SHOWN_MAX:
            parts.append(f"  ... and {len(one.items) - _ITEMS_SHOWN_MAX} more (--json names them)")
    if outcome.parts:
        digests = [(name, f"{one['rows']:,}", one["sha256"]) for name, one in outcome.parts.items()]
        parts.append(table("" if outcome.findings else title, ("part", "rows", "sha256"), digests, right=("rows",)))
    seal = outcome.seal
    if seal is not None:
        when = "now" if outcome.made_now else f"at {seal.sealed_at:%Y-%m-%d %H:%M} UTC"
        parts.append(
            f"Sealed {when} by {seal.actor}, number {seal.number}, sha256 {seal.digest}\n"
            f"signed with key {seal.key_id}" + (f": {outcome.file}" if outcome.file else "")
        )
    return parts


def _said(acceptable: bool) -> str:
    return "NO, may be accepted" if acceptable else "NO"
