"""`meterbridge quote`: what a charge comes to for a quantity, line by line."""

import sys
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import context
from cli.output import emit
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from operators.rate_lookup import Priced
    from operators.rating.explain import Explanation


def quote(
    charge: Annotated[str, typer.Option(help="The charge's id.")],
    plan: Annotated[str, typer.Option(help="The plan's id; not needed with --contract.")] = "",
    quantity: Annotated[str | None, typer.Option(help="Quantity to date in the billing period, as metered.")] = None,
    from_quantity: Annotated[
        str | None, typer.Option("--from", help="Quantity to date before: explains the difference.")
    ] = None,
    events: Annotated[int, typer.Option(min=0, help="Number of events to date.")] = 0,
    from_events: Annotated[int, typer.Option(min=0, help="Number of events to date before.")] = 0,
    values: Annotated[
        str, typer.Option(help="The value of each event, as 100,200,300; in place of --quantity and --events.")
    ] = "",
    plan_version: Annotated[int | None, typer.Option(min=1, help="Default: the one in force at --at.")] = None,
    at: Annotated[str | None, typer.Option(help="Usage time that decides the version; default: now.")] = None,
    contract: Annotated[str, typer.Option(help="CONTRACT or CUSTOMER/CONTRACT: its version and overrides.")] = "",
    share: Annotated[str, typer.Option(help="Part of the period in force, as 10/31: prorates.")] = "1",
    running: Annotated[
        bool, typer.Option("--running", help="While the period runs: no minimum, no fee of zero usage.")
    ] = False,
) -> None:
    """Price a quantity with a plan and show the calculation, tier by tier."""
    from config.revision import Revision  # noqa: PLC0415
    from operators.rate_lookup import find_charge  # noqa: PLC0415
    from operators.rating.explain import explain, explain_events  # noqa: PLC0415

    if (quantity is None) == (not values):
        message = "give either --quantity, or --values with the value of each event"
        raise InvalidRequest(message)
    if values and from_quantity is not None:
        message = "--from goes with --quantity: quote the --values of both times and subtract"
        raise InvalidRequest(message)
    found = find_charge(
        Revision(context().configuration()),
        charge,
        at=_time(at),
        plan=plan,
        plan_version=plan_version,
        contract=contract,
    )
    part, final = _share(share), not running
    before = None
    if quantity is None:
        numbers = [_number(text.strip()) for text in values.split(",")]
        after = explain_events(found.charge, numbers, final=final, share=part)
    else:
        after = explain(found.charge, _number(quantity), events, final=final, share=part)
        if from_quantity is not None:
            before = explain(found.charge, _number(from_quantity), from_events, final=final, share=part)
    _report(found, before, after)


def _report(found: "Priced", before: "Explanation | None", after: "Explanation") -> None:
    from operators.rating import explain_text  # noqa: PLC0415
    from operators.rating.explain import compare  # noqa: PLC0415

    contract = f"{found.customer}/{found.contract}" if found.contract else ""
    data: dict[str, Any] = {
        "plan": found.plan,
        "plan_version": found.plan_version,
        "effective_from": found.effective_from,
        "customer": found.customer,
        "contract": found.contract,
        "currency": found.currency,
    }
    rounded = _cents(after.total, found.currency)
    if before is None:
        lines = explain_text.lines(after, found.currency)
        data |= explain_text.to_plain(after) | {"amount_rounded": rounded}
        cents = f"Rounded, as documents do: {rounded} {found.currency}"
    else:
        step = compare(before, after)
        lines = explain_text.difference_lines(step, found.currency)
        rounded_before = _cents(before.total, found.currency)
        booked = rounded - rounded_before
        data |= explain_text.difference_to_plain(step) | {"amount_rounded": booked}
        cents = f"Documents round the amounts to date: {rounded} - {rounded_before} = {booked} {found.currency}"
    if context().json:
        emit(data)
        return
    title = f"Plan {found.plan}, version {found.plan_version} (from {found.effective_from:%Y-%m-%d})"
    title += f", charge {found.charge.id}" + (f", contract {contract}" if contract else "")
    sys.stdout.write("\n".join([title, *lines, cents]) + "\n")


def _cents(total: Decimal, currency: str) -> Decimal:
    from operators.cents import cents  # noqa: PLC0415
    from operators.rate_chains import quantized  # noqa: PLC0415

    return cents(quantized(total), currency)


def _number(text: str) -> Decimal:
    from core.quantities import decimal_of_scaled, scaled_of_text  # noqa: PLC0415

    scaled = scaled_of_text(text)
    if scaled is None:
        message = f"{text!r} is not a quantity: write a decimal below 10^18 such as 1500 or 0.25, without separators"
        raise InvalidRequest(message)
    return decimal_of_scaled(scaled)


def _share(text: str) -> Fraction:
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        message = f"--share {text!r} is not a fraction such as 10/31"
        raise InvalidRequest(message) from error
    if not 0 <= share <= 1:
        message = f"--share {text} is not between 0 and 1"
        raise InvalidRequest(message)
    return share


def _time(text: str | None) -> datetime:
    from core.clock import SystemClock  # noqa: PLC0415

    if text is None:
        return SystemClock().now()
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"--at {text!r} is not a time such as 2026-10-01T00:00:00Z"
        raise InvalidRequest(message) from error
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
