"""A ledger with documents, a clock, and posters on it."""

import random
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, event, select

from config.settings import PosterSettings, Settings
from core.clock import ManualClock
from flows.poster import Poster
from flows.poster_summary import Summary
from sinks import ledger
from sinks.ledger import documents, exceptions, held, postings, progress, revisions, tables
from sinks.ledger.database import read, write
from sinks.ledger.times import MS_PER_HOUR
from tests.sinks.erp.memory_erp import MemoryErp
from tests.sinks.ledger import samples
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key

START = datetime(2025, 11, 24, 18, tzinfo=UTC)


def _without_sync(connection: Any, _record: Any) -> None:
    """Leave out the disk: these tests kill no machine."""
    connection.execute("PRAGMA synchronous = OFF")


class World:
    """A ledger with documents, a clock, and posters on it."""

    def __init__(self, url: str) -> None:
        ledger.migrate(url)
        self.url = url
        self.engine: Engine = ledger.connect(url)
        if self.engine.dialect.name == "postgresql":
            samples.empty(self.engine)
        else:
            event.listen(self.engine, "connect", _without_sync)
        self.clock = ManualClock(START)
        self.sequence = 0
        self.erp = MemoryErp()

    def configure(self, *entities: dict[str, Any], known_from_ms: int = 0, **more: Any) -> None:
        made = samples.revision(*entities, known_from_ms=known_from_ms, **more)
        revisions.record_revision(self.engine, made, START)

    def book(self, *made: SampleDocument, complete_hour: int = HOUR + 1) -> None:
        """Promote documents, with a watermark that completes every hour before `complete_hour`."""
        self.sequence += 1
        with write(self.engine) as connection:
            assert documents.stage(connection, made, self.sequence) == []
            documents.promote(connection, self.sequence)
            watermark_ms = complete_hour * MS_PER_HOUR + 60_000
            progress.put(connection, progress.PROMOTED, progress.Progress(self.sequence, watermark_ms))

    def poster(self, erp: Any = None, writer: Any = None, batch: int = 100, **more: Any) -> Poster:
        chosen = self.erp if erp is None else erp
        configured = Settings(poster=PosterSettings(batch_documents=batch, poll_s=0.01))
        return Poster(configured, self.engine, lambda _: chosen, self.clock, writer, chance=random.Random(7), **more)

    def once(self, **more: Any) -> Summary:
        return self.poster(**more).run_once()

    def release(self, posting_key: str) -> None:
        """Release a held posting as a person would."""
        now = self.clock.now()
        held.release(self.engine, posting_key, actor="ann", reason="looked into the ERP", now=now)

    def states(self) -> dict[str, int]:
        return postings.count_by_state(self.engine)

    def exceptions(self) -> list[tuple[str, str]]:
        with read(self.engine) as connection:
            return [(row["kind"], row["detail"]) for row in exceptions.open_exceptions(connection)]


BY_CUSTOMER = entity(grain="customer")


def many(count: int, start: int = 0, **more: Any) -> list[SampleDocument]:
    return [SampleDocument(key(start + n), customer=f"c{start + n}", **more) for n in range(count)]


def postings_of(world: World) -> list[postings.Stored]:
    with read(world.engine) as connection:
        keys = connection.execute(select(tables.postings.c.key).order_by(tables.postings.c.key)).scalars().all()
    found = [postings.get(world.engine, one) for one in keys]
    return [one for one in found if one is not None]
