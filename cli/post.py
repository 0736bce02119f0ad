"""`meterbridge post`: the poster, which brings documents into the ERP."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit
from cli.supervised import again_without

if TYPE_CHECKING:
    from sqlalchemy import Engine


def post(
    once: Annotated[bool, typer.Option("--once", help="Deliver what is ready and end.")] = False,
    release: Annotated[
        str, typer.Option(help="First release this held posting (its key): it is sent again as it is. Needs --reason.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start it again after a crash, with backoff; stop at a crash loop.")
    ] = False,
) -> None:
    """Deliver financial documents to the ERP.

    With --once the exit code is 0 only if nothing remained undelivered for an error; documents of hours that are
    not complete yet are no error.
    """
    if supervise:
        again_without("--supervise")
    from core import faults  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows import health, measurements  # noqa: PLC0415
    from flows.poster import Poster  # noqa: PLC0415
    from flows.poster_states import ClickHouseStateWriter  # noqa: PLC0415
    from flows.watch import Watch  # noqa: PLC0415
    from sinks import ledger  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415

    settings = context().settings
    faults.arm(settings.fault_point, settings.environment)
    stop = threading.Event()
    engine = ledger.connect(settings.ledger_url)
    writer = ClickHouseStateWriter(settings.clickhouse)
    poster = Poster(settings, engine, Adapters(settings), SystemClock(), writer, stop=stop)
    try:
        ledger.check_ready(engine)
        if release:
            _release(engine, release, reason)
        with _stopping(stop):
            if once:
                summary = poster.run_once()
            else:
                server = health.serve(settings.metrics, settings.metrics.poster_port)
                watch = Watch(measurements.of_poster(settings, SystemClock()), SystemClock())
                watch.start()
                try:
                    summary = poster.run()
                finally:
                    watch.stop()
                    server.shutdown()
    finally:
        engine.dispose()
    emit(summary.to_plain(), summary.to_text())
    if once and not summary.succeeded:
        raise typer.Exit(1)


def _release(engine: "Engine", key: str, reason: str) -> None:
    """Release a held posting in the name of the person at the terminal."""
    import getpass  # noqa: PLC0415

    from core.clock import SystemClock  # noqa: PLC0415
    from core.errors import InvalidRequest  # noqa: PLC0415
    from sinks.ledger import held  # noqa: PLC0415

    if not reason.strip():
        message = "--release needs --reason TEXT: say why, it goes into the audit log"
        raise InvalidRequest(message)
    held.release(engine, key, actor=getpass.getuser(), reason=reason, now=SystemClock().now())


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set the flag: the batch under way gets its answer, then the poster ends."""
    before = {
        number: signal.signal(number, lambda _number, _frame: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
