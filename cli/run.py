"""`meterbridge run`: the metering flow."""

import threading
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import structlog
import typer

from cli.context import context
from cli.output import emit
from cli.supervised import again_without
from core.collector import loading

if TYPE_CHECKING:
    from cli.context import Context

log = structlog.get_logger()


def run(
    drain: Annotated[bool, typer.Option("--drain", help="End at the last ids seen at the start.")] = False,
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="Record entries lost, or a stream that went backward, and go on.")
    ] = False,
    process_id: Annotated[int, typer.Option(help="Which process of the cluster this is.")] = 0,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start it again after a crash, with backoff; stop at a crash loop.")
    ] = False,
    addresses: Annotated[str, typer.Option(help="All processes as host:port, separated by ';'.")] = "",
) -> None:
    """Run the metering flow: streams in, facts, rated rows and documents out."""
    if supervise:
        again_without("--supervise")
    from flows import threads  # noqa: PLC0415

    cli = context()
    threads.limit(cli.settings.flow.workers)
    threads.keep_memory()
    with loading():
        from flows import runtime  # noqa: PLC0415

    cluster = runtime.Cluster(tuple(part for part in addresses.split(";") if part), process_id)
    ending = runtime.run(
        cli.settings,
        cli.configuration(),
        drain=drain,
        accept_gap=accept_gap,
        cluster=cluster,
        config_path=cli.config_path,
        on_start=partial(_beside, cli, scheduled=not drain and process_id == 0),
    )
    said = "stopped: all that was read is stored"
    if ending.replayed:
        said = "stopped: the last epoch is replayed at the next start"
    elif ending.drained:
        said = "drained: everything that was in the streams is booked"
        if ending.entries_held:
            said = (
                f"drained, but for {ending.entries_held:,} entries: their ids are ahead of the server's clock, or"
                " history is being loaded; they are booked once the clock is there"
            )
    emit(
        {
            "drained": ending.drained,
            "stopped": ending.stopped,
            "epoch_replayed": ending.replayed,
            "entries_held": ending.entries_held,
        },
        said,
    )


def _beside(cli: "Context", stop: threading.Event, *, scheduled: bool) -> None:
    """Start what runs beside the flow."""
    _report_progress(stop)
    if scheduled:
        from core.clock import SystemClock  # noqa: PLC0415
        from flows import summing  # noqa: PLC0415
        from flows.reconciling import Schedule, as_exceptions, command_of, in_process  # noqa: PLC0415

        settings = cli.settings.reconcile
        run_once = in_process(command_of(settings, cli.config_path), settings.seconds_max)
        record = as_exceptions(cli.settings.ledger_url, SystemClock())
        Schedule(settings, cli.settings.state_dir, run_once, SystemClock(), record=record).start(stop)
        summing.start(cli.settings, stop)


READER: Final = {"stage": "reader"}


def _moment(unix_s: float | None) -> str:
    """Return the watermark as a time of the streams' ids; empty before the first."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds") if unix_s else ""


def _report_progress(stop: threading.Event) -> None:
    """Log throughput, lag and watermark every ten seconds, as long as something moves."""
    from prometheus_client import REGISTRY  # noqa: PLC0415

    def total(name: str) -> float:
        return sum(sample.value for metric in REGISTRY.collect() for sample in metric.samples if sample.name == name)

    def loop() -> None:
        before, since_s = total("meterbridge_events_total"), time.monotonic()
        while not stop.wait(10):
            now, now_s = total("meterbridge_events_total"), time.monotonic()
            if now != before:
                log.info(
                    "Events are being metered.",
                    events=int(now),
                    events_per_s=round((now - before) / (now_s - since_s)),
                    lag_entries=int(total("meterbridge_lag_entries")),
                    read_until=_moment(REGISTRY.get_sample_value("meterbridge_watermark_timestamp_seconds", READER)),
                )
            before, since_s = now, now_s

    threading.Thread(target=loop, name="progress", daemon=True).start()
