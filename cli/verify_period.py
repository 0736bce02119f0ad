"""`meterbridge verify --period`: prove that a sealed period did not change."""

from typing import TYPE_CHECKING, Any

from cli.context import context
from cli.output import emit, progress, table
from core.errors import Disagreement

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flows.seal_verification import PartProof, Proof
    from queries.leaves import Difference, Leaf

_SHOWN_MAX = 20


def verify_period(period: str, entity: str) -> None:
    """Verify the sealed period of one entity or of all, print what was found, and fail if anything changed."""
    from flows.seal_verification import sealed_entities  # noqa: PLC0415
    from flows.seal_verification import verify_period as run  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    with open_stores(context().settings) as stores, progress("Verifying", None) as advance:
        proofs = [run(stores, one, period, lambda _: advance(1)) for one in sealed_entities(stores, period, entity)]
    data = {"period": period, "holds": all(one.holds for one in proofs), "entities": [_plain(one) for one in proofs]}
    emit(data, *(part for one in proofs for part in _parts(one)))
    changed = [one for one in proofs if not one.holds]
    if changed:
        lines = [line for one in changed for line in _lines(one)]
        shown = "\n".join(lines[:_SHOWN_MAX])
        message = f"{period} is not as it was sealed, {len(lines):,} findings:\n{shown}"
        raise Disagreement(message)


def _plain(proof: "Proof") -> dict[str, Any]:
    seal = proof.seal
    return {
        "entity": seal.entity,
        "holds": proof.holds,
        "number": seal.number,
        "sha256": seal.digest,
        "sealed_at": seal.sealed_at,
        "sealed_by": seal.actor,
        "problems": proof.problems,
        "parts": [
            {
                "name": part.name,
                "holds": part.holds,
                "expired": part.expired,
                "sealed": part.sealed,
                "now": part.now,
                "differing": part.differing,
                "note": part.note,
                "differences": [_difference(part, one) for one in part.differences],
            }
            for part in proof.parts
        ],
    }


def _difference(part: "PartProof", one: "Difference") -> dict[str, Any]:
    from flows.seal_verification import place_names  # noqa: PLC0415
    from queries.stores import of_hour  # noqa: PLC0415

    hour, owner, item = one.place
    names = place_names(part.name)
    return {
        "table": part.name,
        "what": one.what,
        "booked_hour": of_hour(hour) if hour else None,
        names[0]: owner,
        names[1]: item,
        "sealed": _side(one.sealed),
        "now": _side(one.now),
    }


def _side(leaf: "Leaf | None") -> dict[str, Any] | None:
    return None if leaf is None else {"rows": leaf.rows, "events": leaf.events, "total": leaf.total}


def _parts(proof: "Proof") -> "list[RenderableType]":
    seal = proof.seal
    rows = [
        (
            part.name,
            f"{part.sealed['rows']:,}",
            f"{part.now['rows']:,}" if part.now else "",
            "expired by policy" if part.expired else "as sealed" if part.holds else f"{part.differing:,} DIFFER",
        )
        for part in proof.parts
    ]
    title = f"{seal.entity}, {seal.accounting_period}: sealed {seal.sealed_at:%Y-%m-%d %H:%M} UTC by {seal.actor}"
    numeric = ("rows sealed", "rows now")
    parts: list[RenderableType] = [table(title, ("part", *numeric, "verdict"), rows, right=numeric)]
    parts.extend(f"{part.name}: {part.note}" for part in proof.parts if part.expired)
    if proof.holds:
        parts.append(f"Proven: nothing changed since. Summary {seal.digest}, signed with key {seal.key_id}.")
    return parts


def _lines(proof: "Proof") -> list[str]:
    lines = [f"{proof.seal.entity}: {problem}" for problem in proof.problems]
    for part in proof.parts:
        if part.note and not part.expired:
            lines.append(f"{proof.seal.entity}: {part.name}: {part.note}")
        for one in part.differences:
            plain = _difference(part, one)
            place = ", ".join(
                f"{name} {value}"
                for name, value in plain.items()
                if name not in {"table", "what", "sealed", "now"} and value not in {None, ""}
            )
            lines.append(
                f"{proof.seal.entity}: {part.name} {one.what}: {place}: "
                f"sealed {_side_text(one.sealed)}, now {_side_text(one.now)}"
            )
    return lines


def _side_text(leaf: "Leaf | None") -> str:
    return "nothing" if leaf is None else f"{leaf.rows:,} rows, {leaf.events:,} events, {leaf.total}"
