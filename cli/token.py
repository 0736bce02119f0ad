"""`meterbridge token`: who may use the API and the console."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, note, table
from core.clock import SystemClock
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(help="Make, list and revoke tokens of the API and the console.", no_args_is_help=True)

By = Annotated[str, typer.Option("--by", help="Who, for the audit log. Default: the login name.")]


@contextmanager
def _ledger() -> "Iterator[Engine]":
    from sinks import ledger  # noqa: PLC0415 - keeps `--help` fast

    engine = ledger.connect(context().settings.ledger_url)
    try:
        ledger.check_ready(engine)
        yield engine
    finally:
        engine.dispose()


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what uses it; stands in the audit log.")],
    role: Annotated[str, typer.Option(help="producer, viewer, operator, approver or admin.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="May see and send this tenant (an event's subject) only; repeat for more.")
    ] = None,
    days: Annotated[float, typer.Option(help="Valid for so many days. 0: until it is revoked.", min=0)] = 0,
    by: By = "",
) -> None:
    """Make a token and print it; it cannot be printed again."""
    from sinks.ledger import tokens  # noqa: PLC0415

    with _ledger() as engine:
        token, text = tokens.create(
            engine,
            name,
            role,
            tenants=tenant or (),
            actor=by or getpass.getuser(),
            now=SystemClock().now(),
            valid_for=timedelta(days=days) if days else None,
        )
    emit(asdict(token) | {"token": text}, text)
    note("Keep it: only its digest is stored.")


@app.command("list")
def show_list() -> None:
    """List the tokens; their texts are not stored."""
    from sinks.ledger import tokens  # noqa: PLC0415

    now = SystemClock().now()
    with _ledger() as engine:
        found = tokens.known(engine)
    rows = [
        (
            one.id,
            one.name,
            one.role,
            ", ".join(one.tenants) or "all",
            f"{one.created_at:%Y-%m-%d} by {one.created_by}",
            "revoked" if one.revoked_at else "in force" if one.is_valid(now) else "expired",
        )
        for one in found
    ]
    columns = ("id", "name", "role", "tenants", "made", "state")
    emit([asdict(one) | {"valid": one.is_valid(now)} for one in found], table(f"{len(found)} token(s)", columns, rows))


@app.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, from `token list`.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")],
    by: By = "",
) -> None:
    """End a token and the sessions made from it; a running service knows it within seconds."""
    from sinks.ledger import tokens  # noqa: PLC0415

    if not reason.strip():
        message = "--reason must say why: it goes to the audit log"
        raise InvalidRequest(message)
    with _ledger() as engine:
        ended = tokens.revoke(
            engine, token_id, actor=by or getpass.getuser(), reason=reason.strip(), now=SystemClock().now()
        )
    emit(
        {"id": token_id, "revoked_now": ended}, f"{token_id} is revoked" if ended else f"{token_id} was revoked before"
    )
