"""What each page of the console takes with 10 million facts behind it: `python -m bench.pages [--quick]`.

Pages are asked for over HTTP, one after the other, from a service of its own, as a browser with a session does: from
the first byte sent to the last one received, without the browser's own work.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Final
from urllib.parse import quote, urlsplit

import httpx
import psutil

from bench.figures import Figure, figure
from bench.service import ROOT, cpu_s_of, serving
from bench.stored_month import LAST_DAY, OPEN, stored_month
from config.settings import Settings
from queries.stores import Stores, open_stores
from sinks import ledger
from sinks.ledger import tokens

FACTS: int = 10_000_000
FACTS_QUICK: int = 500_000
ASKED: Final = 9
ASKED_QUICK: Final = 3
SLOWEST: Final = "the slowest page, median"


def measure(*, quick: bool) -> list[Figure]:
    """Return milliseconds of each page, the slowest first, and the processor time of service and ClickHouse."""
    facts = FACTS_QUICK if quick else FACTS
    with (
        tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as name,
        stored_month(Path(name), facts, with_books=True) as (settings, pid),
    ):
        with open_stores(settings) as stores:
            pages = _pages(stores)
        token = _token(settings)
        with serving(_environment(settings)) as service:

            def processor_s() -> float:
                return service.cpu_s() + cpu_s_of(psutil.Process(pid))

            found = _asked(service.address, token, pages, processor_s, ASKED_QUICK if quick else ASKED)
    taken = sorted(found.items(), key=lambda one: -figure("", "", one[1][0], "").value)
    slowest = figure("pages", SLOWEST, figure("", "", taken[0][1][0], "").value, "ms")
    figures = [slowest]
    for name, (took_ms, processor_ms) in taken:
        figures.append(figure("pages", name, took_ms, "ms"))
        figures.append(figure("pages", f"{name}, processor time", processor_ms, "ms"))
    return figures


def _pages(stores: Stores) -> dict[str, str]:
    """Return the address of each page by what it shows."""
    event = stores.rows("SELECT id FROM @usage_events WHERE type = 'llm.completion' LIMIT 1")[0]["id"]
    in_ledger = {"since": LAST_DAY}
    key = stores.rows(
        "SELECT key FROM @financial_documents WHERE customer = 'c0' AND booked_hour >= {since:DateTime} LIMIT 1",
        in_ledger,
    )[0]["key"]
    to = f"to={OPEN + timedelta(hours=1):%Y-%m-%dT%H:%MZ}"
    at = f"at={OPEN:%Y-%m-%dT%H:%MZ}"
    hour = quote(f"{LAST_DAY + timedelta(hours=5):%Y-%m-%dT%H:%M:%SZ}")
    return {
        "overview": "/",
        "usage: all tenants, a day by hour": f"/usage?meter=input&{to}",
        "usage: all tenants, a week by day": f"/usage?meter=input&{to}&span=week",
        "usage: all tenants, a month by day": f"/usage?meter=input&{to}&span=month",
        "usage: all tenants, a month by day and model": f"/usage?meter=input&{to}&span=month&by=model",
        "usage: all tenants, a month by day in India": f"/usage?meter=input&{to}&span=month&zone=Asia/Kolkata",
        "usage: a maximum of all tenants, a month by day": f"/usage?meter=gib_max&{to}&span=month",
        "usage: each tenant, a day": f"/usage?meter=input&{to}&span=day&window=day&by=tenant",
        "usage: one tenant, a month by hour": f"/usage?meter=input&{to}&span=month&window=hour&tenant=s0",
        "usage: a month as of an earlier time": f"/usage?meter=input&{to}&span=month&as_of=2026-09-20T05:00Z",
        "spend: all customers": f"/spend?{at}",
        "spend: one customer": f"/spend?customer=c0&{at}",
        "corrections of a week": f"/corrections?{to}",
        "documents": "/documents",
        "one document": f"/documents/{key}",
        "exceptions": "/exceptions",
        "reconciliation": "/reconciliation",
        "trace": "/trace",
        "trace of an event": f"/trace?q={quote(event)}",
        "events behind a point": f"/events?tenant=s0&meter=input&window=hour&from={hour}",
        "plans": "/plans",
    }


def _environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "METERBRIDGE_CONFIG_FILE": str(ROOT / "config" / "meterbridge.yaml"),
        "METERBRIDGE_STATE_DIR": str(settings.state_dir),
        "METERBRIDGE_CLICKHOUSE__URL": settings.clickhouse.url,
        "METERBRIDGE_CLICKHOUSE__DATABASE": settings.clickhouse.database,
        "METERBRIDGE_CONSOLE__PORT": "0",
        "METERBRIDGE_METRICS__CONSOLE_PORT": "0",
        "METERBRIDGE_CONSOLE__REQUESTS_PER_S_MAX": "100000",
    }


def _token(settings: Settings) -> str:
    engine = ledger.connect(settings.ledger_url)
    _, token = tokens.create(engine, "bench", "admin", actor="bench", now=datetime.now(UTC))
    engine.dispose()
    return token


def _asked(
    address: str, token: str, pages: dict[str, str], processor_s: Callable[[], float], asked: int
) -> dict[str, tuple[list[float], float]]:
    """Return per page the milliseconds of each answer, and the processor time of one.

    :raises SystemExit: a page is not answered with 200.
    """
    found = {}
    place = urlsplit(address)
    origin = f"{place.scheme}://{place.netloc}"
    with httpx.Client(base_url=origin, timeout=120, headers={"Origin": origin}) as client:
        client.post("/login", data={"token": token})
        for name, path in pages.items():
            took_ms = []
            for number in range(asked + 1):
                if number == 1:  # the first one compiles templates and opens connections
                    before_s = processor_s()
                began_s = perf_counter()
                answer = client.get(path)
                took_ms.append((perf_counter() - began_s) * 1e3)
                if answer.status_code != httpx.codes.OK:
                    message = f"{path} was answered by {answer.status_code}: {answer.text[:2000]}"
                    raise SystemExit(message)
            found[name] = (took_ms[1:], (processor_s() - before_s) * 1e3 / asked)
    return found


if __name__ == "__main__":
    for one in measure(quick="--quick" in sys.argv):
        print(f"{one.case}: {one.value:.0f} {one.unit} ({one.lowest:.0f} to {one.highest:.0f})")
