"""`meterbridge migrate`: bring all schemas up to date and journal the configuration."""

from typing import TYPE_CHECKING, Any

from cli.context import context
from cli.output import emit, key_values

if TYPE_CHECKING:
    from config.revision import History


def migrate() -> None:
    """Create or update the tables of ClickHouse and the ledger, and journal the first configuration.

    Repeating it changes nothing. The numbers of shards and readers are fixed by the first call. A changed configuration
    is only checked here: the flow journals it when it starts, since one that runs now would not know it.
    """
    from config.journal import with_corrections  # noqa: PLC0415  # keeps `--help` fast
    from config.revision import Revision  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows.runtime import prepare_history  # noqa: PLC0415
    from sinks import clickhouse, ledger  # noqa: PLC0415
    from sinks.clickhouse.meters import record_meters  # noqa: PLC0415

    cli = context()
    settings, configuration = cli.settings, cli.configuration()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    ledger_applied = ledger.migrate(settings.ledger_url)
    clickhouse_applied = clickhouse.migrate(settings.clickhouse)
    history = prepare_history(settings, configuration, SystemClock(), first_only=True)
    is_changed = Revision(with_corrections(history.latest.configuration, configuration)).digest != history.latest.digest
    record_meters(settings.clickhouse, history.latest)
    emit(
        {
            "clickhouse_migrations": clickhouse_applied,
            "ledger_migrations": ledger_applied,
            "config_version": history.latest.version,
            "config_known_from_ms": history.latest.known_from_ms,
            "config_revisions": len(history.revisions),
            "config_changed": is_changed,
        },
        key_values(_summary(clickhouse_applied, ledger_applied, history, is_changed=is_changed)),
    )


def _summary(
    clickhouse_applied: list[int], ledger_applied: list[str], history: "History", *, is_changed: bool
) -> dict[str, Any]:
    def text(applied: list[Any]) -> str:
        return f"applied {', '.join(map(str, applied))}" if applied else "up to date"

    latest = history.latest
    waits = "; it was changed, and the flow journals that when it starts" if is_changed else ""
    return {
        "ClickHouse": text(clickhouse_applied),
        "ledger": text(ledger_applied),
        "configuration": f"{latest.version}, revision {len(history.revisions)}{waits}",
    }
