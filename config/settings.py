"""Settings of the processes: servers, paths, sizes. Each is also an environment variable `METERBRIDGE_...`.

Nested settings use two underscores: `METERBRIDGE_REDIS__URL`, `METERBRIDGE_FLOW__EPOCH_S`. Nothing here may
change what is stored or posted; what does lives in the configuration revision (`config.revision.Rules`).
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Section(BaseModel):
    """A group of settings; a misspelt name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


STREAMS_MAX: Final = 1024


class RedisSettings(Section):
    """The event streams' server (Redis 7+ or Valkey)."""

    url: str = "redis://127.0.0.1:6390/0"
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    streams: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=STREAMS_MAX)] = (
        "usage:0",
        "usage:1",
        "usage:2",
        "usage:3",
    )
    """Only ever grows at its end: the index of a stream is stored."""
    read_entries: int = Field(default=1000, ge=1, le=100_000)
    """COUNT of one XREAD; larger replies are slower per entry."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    socket_timeout_s: float = Field(default=30.0, gt=0)
    idle_claim_ms: int = Field(default=250, ge=10)
    """How often the watermark of an idle stream is advanced."""
    fence: Literal["xsetid", "tick"] = "xsetid"
    """How an idle claim is made safe; `tick` adds an entry, for servers that forbid XSETID."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        _check_address(url, ("redis", "rediss", "unix"))
        return url

    @field_validator("streams")
    @classmethod
    def _each_once(cls, streams: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse a stream named twice: every entry would be read, and every reject counted, twice."""
        repeated = sorted({name for name in streams if streams.count(name) > 1})
        if repeated:
            message = f"{', '.join(repeated)} stands in the list twice"
            raise ValueError(message)
        return streams


def _check_address(url: str, schemes: tuple[str, ...]) -> None:
    """Refuse what is no URL of these schemes; the message does not repeat it, since it may hold a password."""
    parts = urlsplit(url)
    good = parts.scheme in schemes
    try:
        good = good and bool(parts.hostname or parts.scheme == "unix") and parts.port != 0
    except ValueError:  # the port is no number, or out of range
        good = False
    if not good:
        message = f"must be an address such as {' or '.join(f'{scheme}://host:port' for scheme in schemes[:2])}"
        raise ValueError(message)


RetainedTable = Literal[
    "usage_events",
    "usage_rejects",
    "intake_counts",
    "usage_facts",
    "rated_usage",
    "financial_documents",
]


class ClickHouseSettings(Section):
    """The ClickHouse server, over HTTP."""

    url: str = "http://127.0.0.1:8190"
    username: str = "default"
    password: SecretStr | None = None
    database: str = Field(default="meterbridge", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    connect_timeout_s: float = Field(default=5.0, gt=0)
    request_timeout_s: float = Field(default=60.0, gt=0)
    insert_rows_max: int = Field(default=100_000, ge=1)
    insert_bytes_max: int = Field(default=64 << 20, ge=1 << 20)
    queue_bytes_max: int = Field(default=256 << 20, ge=1 << 20)
    """Rows waiting for the writer thread, per table; when full the flow waits."""
    retention_days: dict[RetainedTable, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Tables that forget rows older than this, by their booked or arrival time; applied by `migrate`."""
    sum_every_s: float = Field(default=300.0, ge=0, le=86_400)
    """How often `run` looks whether booked hours have become final, to sum their facts for dashboards; 0: never."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        _check_address(url, ("http", "https"))
        return url


class LedgerSettings(Section):
    """The ledger database. Empty: SQLite in the state directory."""

    url: SecretStr = SecretStr("")

    @field_validator("url")
    @classmethod
    def _is_database(cls, url: SecretStr) -> SecretStr:
        """Accept SQLAlchemy's URLs of the databases the ledger is made for."""
        text = url.get_secret_value()
        if text and re.match(r"(sqlite|postgres(ql)?)(\+[a-z0-9]+)?://", text) is None:
            message = "must be a database URL such as postgresql://user:password@host/name or sqlite:////path"
            raise ValueError(message)
        return url


class FlowSettings(Section):
    """The metering flow. `id_shards` and `tenant_shards` are fixed at `migrate`."""

    epoch_s: float = Field(default=2.0, gt=0, le=60)
    workers: int = Field(default=1, ge=1, le=8)
    id_shards: int = Field(default=4, ge=1, le=16)
    tenant_shards: int = Field(default=4, ge=1, le=16)
    customer_shards: int = Field(default=4, ge=1, le=16)
    readers: int = Field(default=1, ge=1, le=64)
    """Processes that read streams; stream i is read by reader i % readers. Fixed at `migrate`."""
    item_events_max: int = Field(default=100_000, ge=1)
    item_ms_max: int = Field(default=100, ge=1)
    """Time after which an item leaves; under load, while whole reads come back, it leaves when it is full."""
    epoch_bytes_max: int = Field(default=256 << 20, ge=1 << 20)
    recovery_partitions: int = Field(default=4, ge=1, le=64)
    compiled: bool = True
    """Decode plain events and look ids up with compiled code where numba is installed; the results are the same."""
    compiled_after_events: int = Field(default=50_000, ge=0)
    """So many events a process takes before it loads compiled code: a short run is over before that pays."""
    compiled_dir: Path | None = None
    """Where compiled code is kept for the next start; default `<state_dir>/compiled`."""


class MetricsSettings(Section):
    """Prometheus endpoint of the flow, the poster and the service. Port 0: any free port."""

    host: str = "127.0.0.1"
    flow_port: int = Field(default=9465, ge=0, le=65535)
    poster_port: int = Field(default=9466, ge=0, le=65535)
    console_port: int = Field(default=9467, ge=0, le=65535)


class PosterSettings(Section):
    """Delivery of documents to the ERP."""

    poll_s: float = Field(default=1.0, gt=0)
    batch_documents: int = Field(default=100, ge=1, le=10_000)
    journal_directory: Path | None = None
    """Where the journal adapter writes; default `<state_dir>/books`."""


class ReconcileSettings(Section):
    """Reconciliation on a schedule, beside the flow. `every_minutes` 0: never."""

    every_minutes: int = Field(default=60, ge=0, le=44_640)
    window_hours: int = Field(default=24, ge=1, le=8784)
    """How many of the last sealed booked hours are looked at each time."""
    seconds_max: float = Field(default=1800.0, gt=0)
    """A run that takes longer is ended and counted as one without a result."""


class ConsoleSettings(Section):
    """The service of the API and the web console (`meterbridge serve`)."""

    host: str = "127.0.0.1"
    """Address to listen on. The service speaks plain HTTP: in front of another address put a proxy with TLS."""
    port: int = Field(default=9480, ge=0, le=65535)
    """Port 0: any free port."""
    behind_tls: bool = False
    """A proxy with TLS is in front: the session cookie is then sent over TLS only."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose `X-Forwarded-For` is believed. Without them limits by address see the
    proxy alone, and one caller with a wrong token slows down all others."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together. Limits of rates hold for all of them together, all others for each."""
    threads: int = Field(default=8, ge=1, le=64)
    """Questions to ClickHouse and the ledger that run at once."""
    waiting_max: int = Field(default=64, ge=0, le=10_000)
    """Questions that wait for a thread; more are answered by 503."""
    connections_max: int = Field(default=1000, ge=1, le=100_000)
    request_s_max: float = Field(default=30.0, gt=0, le=600)
    """A question that takes longer is answered by 503."""
    body_bytes_max: int = Field(default=8 << 20, ge=1024, le=256 << 20)
    batch_events_max: int = Field(default=10_000, ge=1, le=100_000)
    """Events in one request."""
    requests_per_s_max: float = Field(default=200.0, gt=0)
    """Per token, on the long run; four seconds' worth may come at once."""
    events_per_s_max: float = Field(default=50_000.0, gt=0)
    """Per token, on the long run; four seconds' worth may come at once."""
    durability: Literal["memory", "disk", "replicas"] = "memory"
    """What the answer to accepted events waits for: the server has them; they are on its disk (WAITAOF); replicas
    have them too (WAIT)."""
    replicas: int = Field(default=1, ge=1, le=16)
    """With `durability: replicas`: how many must have the events."""
    durability_ms_max: int = Field(default=2000, ge=1, le=60_000)
    """Events that are not durable by then are answered by 503, and are counted once when sent again."""
    session_hours: float = Field(default=12.0, gt=0, le=720)
    """How long a login to the console lasts."""
    streams_max: int = Field(default=300, ge=1, le=10_000)
    """Browsers that are told of changes at once (server-sent events)."""


class ClosingSettings(Section):
    """Sealing accounting periods: `meterbridge close`."""

    key_file: Path | None = None
    """Secret file with the signing key, at least 32 bytes; never in the database, never printed."""
    earlier_key_files: tuple[Path, ...] = ()
    """Keys that signed before; they still verify."""
    directory: Path | None = None
    """Where the signed summaries are written; default `<state_dir>/closes`."""


class RetentionSettings(Section):
    """After how many whole months `meterbridge retention` removes rows, by arrival or booked time; null: never.

    Before raw events go, their counts, sums and digests are kept. Legal holds keep rows whatever stands here.
    """

    usage_events: int | None = Field(default=25, ge=3)
    usage_rejects: int | None = Field(default=13, ge=1)
    intake_counts: int | None = Field(default=96, ge=3)
    usage_facts: int | None = Field(default=96, ge=13)
    rated_usage: int | None = Field(default=96, ge=13)
    financial_documents: int | None = Field(default=132, ge=13)
    audit_log: int | None = Field(default=132, ge=13)

    @model_validator(mode="after")
    def _proof_outlives_detail(self) -> "RetentionSettings":
        """Refuse to forget what something kept longer is proven by."""
        order = ("usage_events", "usage_facts", "rated_usage", "financial_documents")
        for first, second in (*pairwise(order), ("usage_events", "intake_counts")):
            one, other = getattr(self, first), getattr(self, second)
            if other is not None and (one is None or one > other):
                message = f"{second} must be kept at least as long as {first}"
                raise ValueError(message)
        return self


class LogSettings(Section):
    """Logs go to standard error."""

    format: Literal["console", "json"] = "console"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """All settings. Sources, strongest first: environment, `meterbridge.yaml` section `settings`, defaults."""

    model_config = SettingsConfigDict(env_prefix="METERBRIDGE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    state_dir: Path = Path(".meterbridge")
    config_file: Path = Path("config/meterbridge.yaml")
    redis: RedisSettings = RedisSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    ledger: LedgerSettings = LedgerSettings()
    flow: FlowSettings = FlowSettings()
    metrics: MetricsSettings = MetricsSettings()
    poster: PosterSettings = PosterSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    console: ConsoleSettings = ConsoleSettings()
    closing: ClosingSettings = ClosingSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    environment: Literal["development", "production"] = "development"
    fault_point: str = ""
    """For fault tests: where the process ends itself by SIGKILL (`core.faults`); refused in production."""

    @property
    def ledger_url(self) -> str:
        """Return the ledger's SQLAlchemy URL; may hold a password, never print it."""
        return self.ledger.url.get_secret_value() or f"sqlite:///{self.state_dir / 'ledger.sqlite'}"

    @property
    def compiled_dir(self) -> Path:
        """Return where compiled code is kept."""
        return self.flow.compiled_dir or self.state_dir / "compiled"

    @property
    def books_dir(self) -> Path:
        """Return where the journal adapter writes."""
        return self.poster.journal_directory or self.state_dir / "books"

    @property
    def closes_dir(self) -> Path:
        """Return where the signed summaries of sealed periods are written."""
        return self.closing.directory or self.state_dir / "closes"
