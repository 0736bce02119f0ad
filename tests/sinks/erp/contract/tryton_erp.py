"""A real Tryton on PostgreSQL under test, with our module or plain, behind the fault proxy."""

import base64
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg

from config.erp_options import Credential, TrytonOptions
from sinks.erp.port import ErpPort
from sinks.erp.tryton import TrytonAdapter
from sinks.erp.tryton_vanilla import TrytonVanillaAdapter
from stack.tryton_database import Company, TrytonDatabases
from stack.tryton_server import TrytonServer
from tests.sinks.erp.contract.harness import ErpUnderTest, Traits, TrueEntry
from tests.sinks.erp.fault_proxy import FaultName, FaultProxy, Reply, forward

PAGE: Final = 4
_TAKEN: Final = json.dumps(
    {"status": 400, "message": "The external id of an account move must be unique in its company.", "description": ""}
).encode()
_MODULE: Final = Traits(
    pages=PAGE,
    batch_of_one_transaction=True,
    can_plant_duplicates=False,  # the database's own constraint refuses it
    duplicate_key_error=Reply(400, _TAKEN, (("Content-Type", "application/json"),)),
)
_VANILLA: Final = Traits(
    pages=PAGE,
    other_currencies=False,  # plain Tryton wants both amounts, and the rate is not ours to choose
)
_FIND: Final = {
    "tryton": "external_id = %s",
    "tryton-vanilla": "description LIKE '[mb:%%:' || %s || ':%%'",
}


class TrytonErp(ErpUnderTest):
    """One company in a database of its own, on a server of its own."""

    def __init__(self, name: str, folder: Path, databases: TrytonDatabases, database: str, company: Company) -> None:
        self.name = name
        self.traits = _MODULE if name == "tryton" else _VANILLA
        self._uri = databases.uri(database)
        self._database = database
        self._company = company
        self._credential = folder / "credential"
        self._credential.write_text(company.key)
        self.server = TrytonServer(databases.home, databases.configuration(folder), database)
        self.start()
        self.proxy = FaultProxy(self.server.port, self._changes)

    def _changes(self, method: str, path: str, _body: bytes) -> bool:
        if self.name == "tryton":
            return method == "POST" and path.endswith("/post_external")
        return method in {"POST", "DELETE"} and "/model/account.move" in path

    def start(self) -> None:
        self.server.start()
        # The first call loads the database's models: not within the short time-outs of the cases.
        status, _, body = forward(
            self.server.port,
            "GET",
            f"/{self._database}/rest/model/account.journal",
            {"Authorization": f"Bearer {self._company.key}"},
            b"",
        )
        assert status == 200, body

    def kill(self) -> None:
        self.server.kill()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def adapter(self, **changes: Any) -> ErpPort:
        company = str(changes.pop("company", self._company.id))
        options = TrytonOptions(
            url=self.proxy.url,
            database=self._database,
            credential=Credential(file=self._credential),
            **(
                {
                    "timeout_s": 10.0,
                    "required_dimensions": ("charge",),
                    "taxes": {"saas": "Tax 0.10", "exempt": None},
                }
                | changes
            ),
        )
        kind = TrytonAdapter if self.name == "tryton" else TrytonVanillaAdapter
        return kind(options, company, page_entries=PAGE)

    @property
    def company_id(self) -> int:
        """Return the id of the company."""
        return self._company.id

    def call(self, method: str, path: str, body: Any) -> tuple[int, str]:
        """Do a REST call as the integration user, without an adapter."""
        plain = {"company": self._company.id, "_skip_warnings": True}  # a person would confirm them
        context = base64.urlsafe_b64encode(json.dumps(plain).encode()).decode()
        headers = {
            "Authorization": f"Bearer {self._company.key}",
            "Content-Type": "application/json",
            "X-Tryton-Context": context,
        }
        address = f"/{self._database}/rest/model/{path}"
        status, _, answer = forward(self.server.port, method, address, headers, json.dumps(body).encode())
        return status, answer.decode()

    def sql(self, query: str, *values: Any) -> list[Any]:
        """Run a statement in Tryton's database, behind its back."""
        with psycopg.connect(self._uri, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def truth(self, keys: Sequence[str]) -> dict[str, list[TrueEntry]]:
        found: dict[str, list[TrueEntry]] = {one: [] for one in keys}
        mark = "m.external_id" if self.name == "tryton" else "split_part(m.description, ':', 3)"
        rows = self.sql(
            f"SELECT m.id, {mark}, m.number, a.code,"
            " sum(coalesce(l.amount_second_currency, l.debit - l.credit)), count(*), string_agg(l.description, '; ')"
            " FROM account_move m JOIN account_move_line l ON l.move = m.id JOIN account_account a ON a.id = l.account"
            f" WHERE m.state = 'posted' AND {mark} = ANY(%s) GROUP BY 1, 2, 3, 4 ORDER BY 1",
            list(keys),
        )
        moves: dict[int, list[tuple[str, str, str, Decimal, int, str]]] = {}
        for move, *line in rows:
            moves.setdefault(move, []).append(tuple(line))
        for lines in moves.values():
            sums = {account: amount for _, _, account, amount, _, _ in lines}
            texts = "; ".join(line[5] or "" for line in lines)
            found[lines[0][0]].append(TrueEntry(lines[0][0], lines[0][1], sums, sum(line[4] for line in lines), texts))
        return found

    def faults(self, *names: FaultName, reply: Reply | None = None) -> None:
        self.proxy.script = list(names)
        self.proxy.reply = reply or self.proxy.reply

    def mix_faults(self, seed: int, rate: float) -> None:
        self.proxy.mix(seed, rate)

    def heal(self) -> None:
        self.proxy.heal()

    def release(self) -> None:
        self.proxy.release()

    def sent(self) -> int:
        return len(self.proxy.concerned())

    def break_credentials(self) -> str:
        self._credential.write_text("expired-but-still-secret")
        return "expired-but-still-secret"

    def renew_credentials(self) -> None:
        self._credential.write_text(self._company.key)

    def secret(self) -> str:
        return self._company.key

    def _move(self, key_: str) -> int:
        ((number,),) = self.sql(f"SELECT min(id) FROM account_move WHERE state = 'posted' AND {_FIND[self.name]}", key_)
        return int(number)

    def plant_edit(self, key_: str) -> None:
        self.sql("UPDATE account_move_line SET debit = 99.99 WHERE debit > 0 AND move = %s", self._move(key_))

    def plant_deletion(self, key_: str) -> None:
        move = self._move(key_)
        self.sql("DELETE FROM account_move_line WHERE move = %s", move)
        self.sql("DELETE FROM account_move WHERE id = %s", move)

    def plant_duplicate(self, key_: str) -> bool:
        move = self._move(key_)
        try:
            ((copy,),) = self._copy("account_move", "id = %s", move, {"number": "number || 'x'"})
        except psycopg.errors.UniqueViolation:
            return False
        self._copy("account_move_line", "move = %s", move, {"move": str(copy)})
        return True

    def _copy(self, table: str, condition: str, value: int, changes: dict[str, str]) -> list[Any]:
        columns = [
            row[0]
            for row in self.sql(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND column_name <> 'id'",
                table,
            )
        ]
        names, values = (
            ", ".join(f'"{name}"' for name in columns),
            ", ".join(changes.get(name, f'"{name}"') for name in columns),
        )
        return self.sql(
            f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE {condition} RETURNING id", value
        )

    def close(self) -> None:
        self.proxy.close()
        self.server.kill()
