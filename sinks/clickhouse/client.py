"""The connection to ClickHouse: clickhouse-connect over HTTP, with our errors and aware UTC times."""

import ipaddress
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client as DriverClient
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.query import QueryResult

from config.settings import ClickHouseSettings
from core.errors import FatalError, Unreachable
from core.logging import without_password
from sinks.clickhouse.errors import classify

_PORTS: Final = {"http": 8123, "https": 8443}

# Every failed try would be logged with a trace by the driver; we raise or log it ourselves, once.
logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def quoted(name: str) -> str:
    """Return an identifier as ClickHouse reads it, whatever it contains."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Client:
    """One connection; not for two threads at once. Close it, or use it as a context.

    Every method raises RetryableError where waiting may help (Unreachable if nothing answers) and FatalError
    where it cannot.
    """

    def __init__(self, driver: DriverClient, settings: ClickHouseSettings) -> None:
        self._driver = driver
        self.settings = settings

    def query(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> QueryResult:
        """Return the rows of a query; values go into `{name:Type}` places, never into the text."""
        with self._translated("running a query"):
            return self._driver.query(text, parameters=dict(parameters or {}), settings=dict(settings or {}))

    def query_arrow(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """Return the rows of a query as an Arrow table."""
        with self._translated("running a query"):
            return self._driver.query_arrow(text, parameters=dict(parameters or {}), settings=dict(settings or {}))

    def blocks(self, text: str, parameters: Mapping[str, Any] | None = None) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a large result in blocks, without holding all of it."""
        with (
            self._translated("reading a large result"),
            self._driver.query_row_block_stream(text, parameters=dict(parameters or {})) as stream,
        ):
            yield from stream

    def command(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a statement and return its single value, if it has one."""
        with self._translated("running a statement"):
            return self._driver.command(text, parameters=dict(parameters or {}), settings=dict(settings or {}))

    def insert_arrow(self, table: str, rows: pa.Table, settings: Mapping[str, Any] | None = None) -> None:
        """Insert an Arrow table into a table of the configured database, by column names.

        :raises Unreachable: something else than ClickHouse answered, if only with a page that says it is well.
        """
        subject = f"inserting {rows.num_rows} rows into {table}"
        with self._translated(subject):
            said = self._driver.insert_arrow(
                f"{quoted(self.settings.database)}.{quoted(table)}", rows, settings=dict(settings or {})
            )
        if "written_rows" not in said.summary:  # ClickHouse counts them in a header, whatever it inserted
            message = (
                f"ClickHouse at {without_password(self.settings.url)} does not answer, {subject}: what came back is no"
                " answer of ClickHouse: look at the proxy before it, or correct METERBRIDGE_CLICKHOUSE__URL"
            )
            raise Unreachable(message)

    def knows_setting(self, name: str) -> bool:
        """Tell whether the server has a setting of that name."""
        return name in self._driver.server_settings

    @property
    def version(self) -> str:
        """Return the server's version."""
        return str(self._driver.server_version)

    @contextmanager
    def _translated(self, subject: str) -> Iterator[None]:
        try:
            yield
        except ClickHouseError as error:
            raise classify(error, self.settings, subject) from error

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()

    def __enter__(self) -> "Client":
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()


def connect(settings: ClickHouseSettings, query_s_max: float | None = None) -> Client:
    """Connect. The database need not exist yet; name it in queries. The server ends queries after `query_s_max`.

    :raises Unreachable: nothing answers; the message names the address and the setting.
    :raises FatalError: the server refuses us, or the URL is not one.
    """
    parts = urlsplit(settings.url)
    if parts.scheme not in _PORTS or not parts.hostname:
        shown = without_password(settings.url)
        message = f"METERBRIDGE_CLICKHOUSE__URL {shown!r} is not an http:// or https:// address"
        raise FatalError(message)
    if parts.username or parts.password:
        message = (
            "METERBRIDGE_CLICKHOUSE__URL names a user or password, which are not read from there: "
            "set METERBRIDGE_CLICKHOUSE__USERNAME and METERBRIDGE_CLICKHOUSE__PASSWORD"
        )
        raise FatalError(message)
    try:
        driver = clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            interface=parts.scheme,
            username=settings.username,
            password=settings.password.get_secret_value() if settings.password else "",
            compress=not _is_loopback(parts.hostname),
            connect_timeout=max(1, math.ceil(settings.connect_timeout_s)),
            send_receive_timeout=max(1, math.ceil(settings.request_timeout_s)),
            autogenerate_session_id=False,
            dedicated_pool=True,
            tz_mode="aware",
            show_clickhouse_errors="scrub",
            settings={} if query_s_max is None else {"max_execution_time": max(1, math.ceil(query_s_max))},
        )
    except ClickHouseError as error:
        raise classify(error, settings, "connecting") from error
    return Client(driver, settings)
