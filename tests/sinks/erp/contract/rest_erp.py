"""A generic ERP over HTTP in a process of its own, behind the fault proxy."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sinks.erp.port import ErpPort
from sinks.erp.rest import RestAdapter
from tests.sinks.erp.contract.harness import ErpUnderTest, Traits, TrueEntry
from tests.sinks.erp.fault_proxy import FaultName, FaultProxy, Reply, forward
from tests.sinks.erp.rest_options import options

ROOT: Final = Path(__file__).resolve().parents[4]
START_S_MAX: Final = 30
PAGE: Final = 4
TOKEN: Final = "token-that-must-not-be-seen"  # noqa: S105 - of a server on loopback
_TAKEN: Final = b'{"message": "already exists: Duplicate Document Number, Idempotency-Key"}'

TRAITS: Final[dict[str, Traits]] = {
    "netsuite": Traits(pages=PAGE, duplicate_key_error=Reply(400, _TAKEN)),
    "xero": Traits(
        pages=PAGE,
        duplicate_key_error=Reply(400, _TAKEN),
        other_currencies=False,  # a manual journal is in the organisation's currency
        reasons={"unknown_customer": "posted"},  # and has no customers
    ),
    "quickbooks": Traits(pages=PAGE, duplicate_key_error=Reply(400, _TAKEN)),
    "plain": Traits(pages=PAGE, refuses_doubles=False, books_late_duplicates=True, settles_alone=False),
    "jobs": Traits(pages=PAGE, refuses_doubles=False, books_late_duplicates=True, settles_alone=False),
}


class RestErp(ErpUnderTest):
    """One kind of ERP; the server keeps its port over restarts."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.name = f"rest-{kind}"
        self.kind = kind
        self.traits = TRAITS[kind]
        self.store = folder / "store.sqlite"
        self._port_file = folder / "port"
        self._token_file = folder / "token"
        self._credential = folder / "credential"
        self._token_file.write_text(TOKEN)
        self._credential.write_text(TOKEN)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.proxy = FaultProxy(int(self._port_file.read_text()), self._changes)

    @staticmethod
    def _changes(method: str, path: str, _body: bytes) -> bool:
        return method in {"POST", "PUT"} and "suiteql" not in path

    def start(self) -> None:
        was = self._port_file.read_text() if self._port_file.exists() else ""
        module = [sys.executable, "-m", "tests.sinks.erp.rest_server", self.kind]
        files = [str(self.store), str(self._port_file), str(self._token_file)]
        marker = self._port_file.stat().st_mtime_ns if was else 0
        self._process = subprocess.Popen([*module, *files], cwd=ROOT)
        until_s = time.monotonic() + START_S_MAX
        while not self._port_file.exists() or self._port_file.stat().st_mtime_ns == marker:
            assert self._process.poll() is None, "the ERP did not start"
            assert time.monotonic() < until_s
            time.sleep(0.02)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def adapter(self, **changes: Any) -> ErpPort:
        return RestAdapter(options(self.kind, self.proxy.url, self._credential, page_size=PAGE, **changes), "1")

    def truth(self, keys: Sequence[str]) -> dict[str, list[TrueEntry]]:
        found: dict[str, list[TrueEntry]] = {one: [] for one in keys}
        with self._database() as database:
            for number, one in database.execute("SELECT id, key FROM entries ORDER BY id"):
                if one in found:
                    query = "SELECT account, amount, dimension FROM lines WHERE entry = ?"
                    rows = database.execute(query, [number]).fetchall()
                    sums: dict[str, Decimal] = {}
                    for account, amount, _ in rows:
                        sums[account] = sums.get(account, Decimal(0)) + Decimal(amount)
                    text = f"guid-{number}" if self.kind == "xero" else str(number)
                    found[one].append(TrueEntry(one, text, sums, len(rows), "; ".join(row[2] for row in rows)))
        return found

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.store, timeout=20)

    def faults(self, *names: FaultName, reply: Reply | None = None) -> None:
        self.proxy.script = list(names)
        self.proxy.reply = reply or self.proxy.reply

    def mix_faults(self, seed: int, rate: float) -> None:
        mixed = [name for name in self.proxy.mixed if name != "duplicate" or not self.traits.books_late_duplicates]
        self.proxy.mix(seed, rate, tuple(mixed))

    def heal(self) -> None:
        self.proxy.heal()

    def release(self) -> None:
        self.proxy.release()

    def sent(self) -> int:
        return len(self.proxy.concerned())

    def finish_jobs(self) -> None:
        if self.kind != "jobs":
            return
        with self._database() as database:
            numbers = [row[0] for row in database.execute("SELECT id FROM jobs WHERE entry IS NULL")]
        for number in numbers:
            for _ in range(2):  # the first answer is that it runs
                forward(self.proxy.upstream_port, "GET", f"/jobs/{number}", {"Authorization": f"Bearer {TOKEN}"}, b"")

    def break_credentials(self) -> str:
        self._credential.write_text("expired-but-still-secret")
        return "expired-but-still-secret"

    def renew_credentials(self) -> None:
        self._credential.write_text(TOKEN)

    def secret(self) -> str:
        return TOKEN

    def plant_edit(self, key_: str) -> None:
        with self._database() as database:
            database.execute(
                "UPDATE lines SET amount = '99.99' WHERE place = 0 AND entry = (SELECT id FROM entries WHERE key = ?)",
                [key_],
            )

    def plant_deletion(self, key_: str) -> None:
        with self._database() as database:
            database.execute("DELETE FROM entries WHERE key = ?", [key_])

    def plant_duplicate(self, key_: str) -> bool:
        with self._database() as database:
            copied = "INSERT INTO entries (key, digest, currency, date, day) SELECT key, digest, currency, date, day"
            cursor = database.execute(f"{copied} FROM entries WHERE key = ?", [key_])
            database.execute(
                "INSERT INTO lines SELECT ?, place, account, amount, customer, dimension FROM lines"
                " WHERE entry = (SELECT min(id) FROM entries WHERE key = ?)",
                [cursor.lastrowid, key_],
            )
        return True

    def close(self) -> None:
        self.proxy.close()
        self.kill()
