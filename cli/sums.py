"""`meterbridge sums`: facts summed by hour for dashboards, now or again."""

import threading
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.context import context
from cli.output import emit, note
from core.errors import InvalidRequest


def sums(
    again_from: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="Drop the sums from this month on, and make them again.")
    ] = "",
) -> None:
    """Sum facts by hour now, as far as booked hours are final. `run` does the same every few minutes.

    Pages and dashboards read the sums, and facts where there are none; the figures are the same.
    """
    from flows import summing  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415
    from sinks.clickhouse import usage_hours  # noqa: PLC0415

    since = _month(again_from) if again_from else None
    stop = threading.Event()
    with open_stores(context().settings) as stores:
        if since is not None:
            note("Questions that are under way get their time first: this takes a minute.")
        steps = list(summing.advance(stores, stop) if since is None else summing.again(stores, since, stop))
        until = usage_hours.summed_until(stores.client)
    text = "nothing is summed: no booked hour is final yet" if until is None else f"summed until {until:%F %H:%M} UTC"
    emit({"until": until, "steps": len(steps)}, text)


def _month(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        message = f"--again-from {text!r} is no month such as 2026-09"
        raise InvalidRequest(message) from error
