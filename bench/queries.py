"""What questions of dashboards take over a month of facts: `python -m bench.queries [--quick]`.

Each is asked as the console, the API or a dashboard asks it, through the queries of the product. A percentile is one of
so many askings, over tenants of all sizes where a tenant is chosen. What one tenant's month comes to is compared with
the facts added up.
"""

import random
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psutil

from bench.figures import Figure, figure
from bench.load import percentile
from bench.stored_month import DAYS, LAST_DAY, OPEN, START, stored_month
from queries.stores import Stores, open_stores
from queries.usage import UsageQuestion, usage

FACTS: int = 100_000_000
FACTS_QUICK: int = 1_000_000
ASKED: Final = 100
ASKED_QUICK: Final = 10
_END: Final = START + timedelta(days=DAYS)

TENANT_MONTH: Final = "one tenant's month by hour"
_VIEWS: Final = {
    "view: one tenant's month by hour": (
        "SELECT usage_hour, meter, sum(value) AS v FROM @tenant_usage_by_hour(tenant = 's{tenant}',"
        " since = '2026-09-01 00:00:00', until = '2026-10-01 00:00:00') GROUP BY usage_hour, meter"
    ),
    "view: one tenant's days": "SELECT usage_day, sum(value) AS v FROM @usage_by_day WHERE tenant = 's{tenant}'"
    " AND meter = 'input' GROUP BY usage_day",
    "view: late share by hour": "SELECT booked_hour, sum(events_late) AS n FROM @late_share GROUP BY booked_hour",
    "view: top movers": "SELECT * FROM @top_movers ORDER BY abs(change) DESC LIMIT 5",
}


def measure(*, quick: bool) -> list[Figure]:
    """Return median and 99th percentile of each question in milliseconds, and the processor time of ClickHouse."""
    facts = FACTS_QUICK if quick else FACTS
    with (
        tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as name,
        stored_month(Path(name), facts, with_books=False) as (settings, pid),
        open_stores(settings) as stores,
    ):
        figures = [_stored(stores)]
        _check(stores)
        for case, ask in _questions(stores).items():
            figures += _timed(case, ask, psutil.Process(pid), ASKED_QUICK if quick else ASKED)
    return figures


def _stored(stores: Stores) -> Figure:
    rows = stores.rows("SELECT count() AS n FROM @usage_facts FINAL")
    return figure("queries", "facts of a month, of 1,000 tenants and 20,000 series", float(rows[0]["n"]), "rows")


def _check(stores: Stores) -> None:
    """Compare with the facts added up.

    :raises AssertionError: something differs.
    """
    for condition, tenants in (("tenant = 's0'", ["s0"]), ("tenant = 's700'", ["s700"]), ("1", None)):
        rows = stores.rows(
            "SELECT toStartOfHour(usage_minute) AS hour, sum(f.value) AS v, sum(f.events) AS n"
            f" FROM @usage_facts_current AS f WHERE meter = 'input' AND {condition}"
            " AND usage_minute >= {from:DateTime} GROUP BY hour",
            {"from": START},
        )
        question = UsageQuestion("input", "hour", START, _END, tenants=tenants)
        found = {row["window_start"]: (row["value"], row["events"]) for row in usage(stores, question).rows}
        if found != {row["hour"]: (row["v"], int(row["n"])) for row in rows}:
            message = f"usage of {tenants or 'all tenants'} is not what the facts add up to"
            raise AssertionError(message)


def _questions(stores: Stores) -> dict[str, Callable[[], Any]]:
    chance = random.Random(1)  # the same tenants in every run

    def tenant() -> str:
        return f"s{int(1000 ** chance.random()) - 1}"  # as likely among the largest ten as among the smallest 900

    def ask(**changes: Any) -> None:
        plain: dict[str, Any] = {"meter": "input", "window": "hour", "begins": START, "ends": _END, "limit": 20_000}
        usage(stores, UsageQuestion(**plain | changes))

    return {
        TENANT_MONTH: lambda: ask(tenants=[tenant()]),
        "one tenant's month by hour and model": lambda: ask(tenants=[tenant()], group_by=("model",)),
        "one tenant's month by hour, a maximum": lambda: ask(tenants=[tenant()], meter="gib_max"),
        "one tenant's month by hour, as of a booked minute": lambda: ask(
            tenants=[tenant()], as_of=START + timedelta(days=20, minutes=437)
        ),
        "one tenant's last day by minute": lambda: ask(
            tenants=[tenant()], window="minute", begins=OPEN - timedelta(days=1), ends=OPEN
        ),
        "all tenants, last day by hour": lambda: ask(begins=LAST_DAY),
        "all tenants, month by hour": ask,
        "all tenants, month by day and model": lambda: ask(window="day", group_by=("model",)),
        "all tenants, month by day in India": lambda: ask(window="day", zone="Asia/Kolkata"),
        "all tenants, month by day, as of a booked hour": lambda: ask(window="day", as_of=START + timedelta(days=20)),
        "each tenant's last day": lambda: ask(window="day", begins=LAST_DAY, group_by=("tenant",)),
    } | {case: lambda text=text: stores.rows(text.replace("{tenant}", tenant()[1:])) for case, text in _VIEWS.items()}


def _timed(case: str, ask: Callable[[], Any], server: psutil.Process, asked: int) -> list[Figure]:
    ask()
    took_ms = []
    before_s = sum(server.cpu_times()[:2])
    for _ in range(asked):
        began_s = perf_counter()
        ask()
        took_ms.append((perf_counter() - began_s) * 1e3)
    processor_ms = (sum(server.cpu_times()[:2]) - before_s) * 1e3 / asked
    return [
        figure("queries", f"{case}, median", percentile(took_ms, 50), "ms"),
        figure("queries", f"{case}, 99th percentile", percentile(took_ms, 99), "ms"),
        figure("queries", f"{case}, processor time of ClickHouse", processor_ms, "ms"),
    ]


if __name__ == "__main__":
    for one in measure(quick="--quick" in sys.argv):
        print(f"{one.case}: {one.value:.1f} {one.unit}")
