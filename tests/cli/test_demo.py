"""The demo keeps to itself: whatever the settings say, its invented documents reach no other ledger, books or ERP."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from cli import demo, demo_steps
from config.revision import Configuration
from config.settings import ClickHouseSettings, LedgerSettings, PosterSettings, RedisSettings, Settings
from core.errors import InvalidRequest

PRODUCTION = {
    "METERBRIDGE_LEDGER__URL": "postgresql://me:hunter2@db/ledger",
    "METERBRIDGE_REDIS__PASSWORD": "hunter2",
    "METERBRIDGE_REDIS__USERNAME": "me",
    "METERBRIDGE_CLICKHOUSE__PASSWORD": "hunter2",
    "METERBRIDGE_POSTER__JOURNAL_DIRECTORY": "/srv/books",
}


def test_other_servers_ledger_and_books_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    base = Settings(
        state_dir=tmp_path,
        redis=RedisSettings(url="rediss://redis:1/3", tls=True, password=SecretStr("hunter2")),
        clickhouse=ClickHouseSettings(url="https://ch:1", password=SecretStr("hunter2")),
        ledger=LedgerSettings(url=SecretStr(PRODUCTION["METERBRIDGE_LEDGER__URL"])),
        poster=PosterSettings(journal_directory=Path("/srv/books")),
    )
    settings = demo_steps.settings_of(base, demo.DEMO_DIRECTORY)
    assert settings.ledger_url == f"sqlite:///{tmp_path}/demo/ledger.sqlite"
    assert settings.books_dir == tmp_path / "demo" / "books"
    assert settings.redis.password is None
    environment = demo_steps.environment_of(settings, tmp_path / "config.yaml")
    assert "hunter2" not in "".join(environment.values())
    assert environment["METERBRIDGE_LEDGER__URL"] == settings.ledger_url
    assert environment["METERBRIDGE_POSTER__JOURNAL_DIRECTORY"] == str(settings.books_dir)
    assert environment["METERBRIDGE_REDIS__TLS"] == "false"


def test_a_configuration_that_posts_to_a_real_erp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from config.loader import load  # noqa: PLC0415

    for name in PRODUCTION:
        monkeypatch.delenv(name, raising=False)
    shipped = load(Path(demo.__file__).parents[1] / "config" / "meterbridge.yaml")
    demo._refuse_real_erps(shipped)
    entity = shipped.entities[0]
    real = entity.model_copy(update={"erp": entity.erp.model_copy(update={"adapter": "tryton"})})
    with pytest.raises(InvalidRequest, match=f"entity {entity.id} posts to tryton"):
        demo._refuse_real_erps(Configuration(entities=(real,)))
