"""Price corrections that people approved. The flow journals them with the configuration when it starts."""

from datetime import datetime

import orjson
from sqlalchemy import Engine, insert, select, update

from config.price_corrections import PriceCorrection
from core.errors import InvalidRequest
from sinks.ledger import audit, revisions, tables
from sinks.ledger.database import read, write
from sinks.ledger.times import to_ms

_TABLE = tables.price_corrections


def approved(engine: Engine) -> list[PriceCorrection]:
    """Return every approved correction that was not withdrawn, oldest first."""
    query = select(_TABLE.c.json).where(_TABLE.c.withdrawn_at_ms.is_(None))
    with read(engine) as connection:
        texts = connection.execute(query.order_by(_TABLE.c.recorded_at_ms, _TABLE.c.id)).scalars().all()
    return [PriceCorrection.model_validate(orjson.loads(text)) for text in texts]


def journaled(engine: Engine) -> set[str]:
    """Return the ids of the corrections that are in the configuration journal."""
    history = revisions.load_history(engine)
    return {one.id for revision in history[-1:] for one in revision.configuration.price_corrections}


def approve(engine: Engine, correction: PriceCorrection, now: datetime) -> bool:
    """Record a correction, and return whether it is new: the same one is recorded once."""
    plain = correction.model_dump(mode="json", by_alias=True)
    values = {
        "json": orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode(),
        "actor": correction.approved_by,
        "reason": correction.reason,
        "recorded_at_ms": to_ms(now),
        "withdrawn_at_ms": None,
    }
    with write(engine) as connection:
        known = connection.execute(select(_TABLE.c.withdrawn_at_ms).where(_TABLE.c.id == correction.id)).first()
        if known is not None and known.withdrawn_at_ms is None:
            return False
        if known is None:
            connection.execute(insert(_TABLE).values(id=correction.id, **values))
        else:
            connection.execute(update(_TABLE).where(_TABLE.c.id == correction.id).values(**values))
        detail = f"plan {correction.plan} from {correction.from_.isoformat()}: {correction.reason_code}"
        audit.record(
            connection,
            at=now,
            actor=correction.approved_by,
            action="approve-price-correction",
            subject=correction.id,
            reason=correction.reason,
            detail=detail,
        )
    return True


def withdraw(engine: Engine, correction_id: str, *, actor: str, reason: str, now: datetime) -> None:
    """Take back a correction that no flow has journaled yet.

    :raises InvalidRequest: there is none of that id, or it is in the books' configuration already.
    """
    if correction_id in journaled(engine):
        message = (
            f"price correction {correction_id} is part of the recorded configuration, and booked by it: approve"
            " another one over the same periods, which books the difference"
        )
        raise InvalidRequest(message)
    with write(engine) as connection:
        change = update(_TABLE).where(_TABLE.c.id == correction_id, _TABLE.c.withdrawn_at_ms.is_(None))
        if not connection.execute(change.values(withdrawn_at_ms=to_ms(now))).rowcount:
            message = f"no approved price correction has the id {correction_id!r}"
            raise InvalidRequest(message)
        audit.record(
            connection,
            at=now,
            actor=actor,
            action="withdraw-price-correction",
            subject=correction_id,
            reason=reason,
        )
