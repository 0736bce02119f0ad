"""Five kinds of ERP over HTTP, each with its own way of keeping a repeat from being booked twice, as documented.

- netsuite: `PUT .../journalentry/eid:<key>` makes or rewrites, 204 with the id in `Location`; SuiteQL rows for reading.
- xero: `Idempotency-Key`: the same request gets the first answer; entries in pages.
- quickbooks: `requestid` in the query, the same id gets the first answer; a query language for reading.
- jobs: accepts with a job to poll and refuses no repeat, as imports of Oracle Fusion.
- plain: no idempotency at all, and errors with status 200.
"""

import json
import re
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from tests.sinks.erp.rest_store import Refused, Store, exact

Answer = tuple[int, Any, dict[str, str]]


class Erp:
    """What a kind of ERP does with a request; `handle` runs in one transaction."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any) -> Answer:
        raise NotImplementedError

    def refused(self, why: str) -> Answer:
        raise NotImplementedError


def mark(text: str) -> tuple[str, str, str]:
    """Return booked day, key and digest of a memo `mb <day> <key> <digest> ...`."""
    day, key, digest = text.split()[1:4]
    return day, key, digest


class NetSuite(Erp):
    BASE = "/services/rest/record/v1/journalentry"

    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any) -> Answer:
        if method == "POST" and path == "/services/rest/query/v1/suiteql":
            return self.suiteql(query, body["q"])
        key = unquote(path.removeprefix(f"{self.BASE}/eid:"))
        known = self.store.rows("SELECT id FROM entries WHERE key = ?", key)
        day, _, digest = mark(body["memo"])
        entry = {
            "key": key,
            "digest": digest,
            "currency": body["currency"]["refName"],
            "date": body["tranDate"],
            "day": day,
            "lines": [
                {
                    "account": line["account"]["id"],
                    "amount": exact(line.get("debit", 0)) - exact(line.get("credit", 0)),
                    "customer": line.get("entity", {}).get("id"),
                    "dimension": line.get("memo"),
                }
                for line in body["line"]["items"]
            ],
        }
        number = self.store.book(entry, known[0]["id"] if known else None)
        return 204, None, {"Location": f"https://erp.example{self.BASE}/{number}"}

    def suiteql(self, query: dict[str, str], text: str) -> Answer:
        one = re.search(r"externalid = '([^']*)'", text)
        days = re.search(r"BETWEEN '([^']*)' AND '([^']*)'", text)
        condition, values = (
            ("e.key = ?", [one[1]]) if one else ("e.day BETWEEN ? AND ?", [days[1], days[2]] if days else [])
        )
        rows = self.store.rows(
            "SELECT e.id, e.key AS externalid, e.digest, e.currency, e.date AS trandate, e.day, l.account, l.amount"
            f" FROM entries e JOIN lines l ON l.entry = e.id WHERE {condition} ORDER BY e.id, l.place LIMIT ? OFFSET ?",
            *values,
            int(query.get("limit", 1000)),
            int(query.get("offset", 0)),
        )
        return 200, {"items": rows, "count": len(rows), "hasMore": False}, {}

    def refused(self, why: str) -> Answer:
        details = [{"detail": why, "o:errorCode": "USER_ERROR"}]
        return 400, {"title": "Bad Request", "status": 400, "o:errorDetails": details}, {}


class Xero(Erp):
    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any) -> Answer:
        if method == "GET":
            return self.search(query, headers.get("if-modified-since", "")[:10])
        request, text = headers.get("idempotency-key", ""), json.dumps(body, sort_keys=True, default=str)
        known = self.store.rows("SELECT * FROM requests WHERE id = ?", request)
        if known and known[0]["body"] != text:
            return self.refused("the Idempotency-Key was used with another request")
        number = known[0]["entry"] if known else self.book(body)
        if not known:
            self.store.connection.execute("INSERT INTO requests VALUES (?, ?, ?)", [request, text, number])
        return 200, {"ManualJournals": [self.plain(number)]}, {}

    def book(self, body: dict[str, Any]) -> int:
        day, key, digest = mark(body["Narration"])
        return self.store.book(
            {
                "key": key,
                "digest": digest,
                "currency": "USD",
                "date": body["Date"],
                "day": day,
                "lines": [
                    {
                        "account": line["AccountCode"],
                        "amount": exact(line["LineAmount"]),
                        "customer": None,
                        "dimension": line.get("Description"),
                    }
                    for line in body["JournalLines"]
                ],
            }
        )

    def plain(self, number: int) -> dict[str, Any]:
        (entry,) = self.store.rows("SELECT * FROM entries WHERE id = ?", number)
        lines = [
            {"AccountCode": line["account"], "LineAmount": Decimal(line["amount"])} for line in self.store.lines(number)
        ]
        return {
            "ManualJournalID": f"guid-{number}",
            "Narration": f"mb {entry['day']} {entry['key']} {entry['digest']} usage",
            "Date": entry["date"] + "T00:00:00",
            "JournalLines": lines,
        }

    def search(self, query: dict[str, str], since: str) -> Answer:
        where, size = query.get("where", ""), int(query.get("pageSize", 100))
        one = re.search(r'Contains\("([^"]*)"\)', where)
        condition, values = ("key = ?", [one[1]]) if one else ("day >= ?", [since])
        found = self.store.rows(
            f"SELECT id FROM entries WHERE {condition} ORDER BY id LIMIT ? OFFSET ?",
            *values,
            size,
            size * (int(query.get("page", 1)) - 1),
        )
        return 200, {"ManualJournals": [self.plain(row["id"]) for row in found]}, {}

    def refused(self, why: str) -> Answer:
        return 400, {"Type": "ValidationException", "Elements": [{"ValidationErrors": [{"Message": why}]}]}, {}


class QuickBooks(Erp):
    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any) -> Answer:
        if method == "GET":
            return self.search(query["query"])
        known = self.store.rows("SELECT * FROM requests WHERE id = ?", query["requestid"])
        number = known[0]["entry"] if known else self.book(body)
        if not known:
            self.store.connection.execute("INSERT INTO requests VALUES (?, '', ?)", [query["requestid"], number])
        return 200, {"JournalEntry": self.plain(number), "time": "2026-01-01T00:00:00Z"}, {}

    def book(self, body: dict[str, Any]) -> int:
        day, _, digest = mark(body["PrivateNote"])
        lines = []
        for line in body["Line"]:
            detail = line["JournalEntryLineDetail"]
            amount = exact(line["Amount"])
            lines.append(
                {
                    "account": detail["AccountRef"]["value"],
                    "amount": amount if detail["PostingType"] == "Debit" else -amount,
                    "customer": detail.get("Entity", {}).get("value"),
                    "dimension": line.get("Description"),
                }
            )
        entry = {"key": body["DocNumber"], "digest": digest, "date": body["TxnDate"], "day": day, "lines": lines}
        return self.store.book({**entry, "currency": body["CurrencyRef"]["value"]})

    def plain(self, number: int) -> dict[str, Any]:
        (entry,) = self.store.rows("SELECT * FROM entries WHERE id = ?", number)
        lines = [
            {
                "Amount": abs(Decimal(line["amount"])),
                "JournalEntryLineDetail": {
                    "PostingType": "Debit" if Decimal(line["amount"]) >= 0 else "Credit",
                    "AccountRef": {"value": line["account"]},
                },
            }
            for line in self.store.lines(number)
        ]
        note = f"mb {entry['day']} {entry['key']} {entry['digest']} usage"
        head = {"Id": str(number), "DocNumber": entry["key"], "TxnDate": entry["date"], "PrivateNote": note}
        return {**head, "CurrencyRef": {"value": entry["currency"]}, "Line": lines}

    def search(self, text: str) -> Answer:
        one = re.search(r"DocNumber = '([^']*)'", text)
        since = re.search(r"CreateTime >= '(\d{4}-\d{2}-\d{2})'", text)
        start, size = re.search(r"startposition (\d+)", text), re.search(r"maxresults (\d+)", text)
        condition, values = ("key = ?", [one[1]]) if one else ("day >= ?", [since[1] if since else ""])
        found = self.store.rows(
            f"SELECT id FROM entries WHERE {condition} ORDER BY id LIMIT ? OFFSET ?",
            *values,
            int(size[1]) if size else 100,
            int(start[1]) - 1 if start else 0,
        )
        response = {"JournalEntry": [self.plain(row["id"]) for row in found]} if found else {}
        return 200, {"QueryResponse": response}, {}

    def refused(self, why: str) -> Answer:
        code = "6210" if "period" in why else "2500" if "Invalid" in why else "6000"
        return 400, {"Fault": {"type": "ValidationFault", "Error": [{"code": code, "Message": why}]}}, {}


class Plain(Erp):
    """Entries as they are sent: `{ref, digest, day, date, currency, lines: [{account, amount, customer, text}]}`."""

    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any) -> Answer:
        if path == "/balances":
            return self.balances(query.get("until", ""))
        if method == "GET":
            return self.search(query)
        if (match := re.fullmatch(r"/entries/(\d+)/(edit|post|cancel)", path)) is not None:
            return self.person(int(match[1]), match[2], body)
        number = self.store.book(self.entry(body))
        state = "draft" if body.get("state") == "draft" and body.get("kind") in ("invoice", "credit_note") else "posted"
        self.store.connection.execute("UPDATE entries SET state = ? WHERE id = ?", [state, number])
        return 200, {"result": {"id": number}}, {}

    def person(self, number: int, act: str, body: dict[str, Any]) -> Answer:
        """Do what a person does with a draft, who says his name and the time."""
        connection = self.store.connection
        if not self.store.rows("SELECT id FROM entries WHERE id = ? AND state = 'draft'", number):
            message = f"{number} is no draft"
            raise Refused(message)
        change = "UPDATE entries SET changed_by = ?, changed_at = ? WHERE id = ?"
        connection.execute(change, [body["by"], body["at"], number])
        for account, amount in body.get("amounts", {}).items():
            query = "UPDATE lines SET amount = ? WHERE entry = ? AND account = ?"
            connection.execute(query, [amount, number, account])
        if act != "edit":
            state = {"post": "posted", "cancel": "cancelled"}[act]
            connection.execute("UPDATE entries SET state = ? WHERE id = ?", [state, number])
        return 200, {"result": {"id": number}}, {}

    def balances(self, until: str) -> Answer:
        sums: dict[tuple[str, str, str], Decimal] = {}
        rows = self.store.rows(
            "SELECT l.account, e.currency, coalesce(l.customer, '') AS customer, l.amount FROM lines l"
            " JOIN entries e ON e.id = l.entry WHERE e.state = 'posted' AND e.date <= ?",
            until or "9999",
        )
        for row in rows:
            place = (row["account"], row["currency"], row["customer"])
            sums[place] = sums.get(place, Decimal(0)) + Decimal(row["amount"])
        names = ("account", "currency", "customer")
        return 200, {"result": [dict(zip(names, place, strict=True)) | {"balance": sums[place]} for place in sums]}, {}

    def entry(self, body: dict[str, Any]) -> dict[str, Any]:
        lines = [
            {
                "account": line["account"],
                "amount": exact(line["amount"]),
                "customer": line.get("customer"),
                "dimension": line.get("text"),
            }
            for line in body["lines"]
        ]
        return {
            "key": body["ref"],
            **{name: body[name] for name in ("digest", "day", "date", "currency")},
            "kind": body.get("kind", "journal"),
            "lines": lines,
        }

    def search(self, query: dict[str, str]) -> Answer:
        condition, values = ("key = ?", [query["ref"]]) if "ref" in query else ("day BETWEEN ? AND ?", [])
        if not values:
            values = [query["first"], query["last"]]
        found = self.store.rows(
            f"SELECT * FROM entries WHERE {condition} ORDER BY id LIMIT ? OFFSET ?",
            *values,
            int(query.get("limit", 100)),
            int(query.get("offset", 0)),
        )
        for entry in found:
            entry["lines"] = self.store.lines(entry["id"])
        return 200, {"result": found}, {}

    def refused(self, why: str) -> Answer:
        return 200, {"error": {"message": why}}, {}


class Jobs(Plain):
    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any) -> Answer:
        connection = self.store.connection
        if method == "POST":
            cursor = connection.execute("INSERT INTO jobs (body, asked) VALUES (?, 0)", [json.dumps(body, default=str)])
            return 202, {"job": cursor.lastrowid}, {}
        if not path.startswith("/jobs/"):
            return self.search(query)
        number = int(path.rpartition("/")[2])
        found = self.store.rows("SELECT * FROM jobs WHERE id = ?", number)
        if not found:
            return 404, {"state": "unknown"}, {}
        if not found[0]["asked"]:
            connection.execute("UPDATE jobs SET asked = 1 WHERE id = ?", [number])
            return 200, {"state": "running"}, {}
        entry = found[0]["entry"]
        if entry is None:
            entry = self.store.book(self.entry(json.loads(found[0]["body"])))
            connection.execute("UPDATE jobs SET entry = ? WHERE id = ?", [entry, number])
        return 200, {"state": "done", "number": entry}, {}

    def refused(self, why: str) -> Answer:
        return 200, {"state": "failed", "error": why}, {}


KINDS: dict[str, type[Erp]] = {
    "netsuite": NetSuite,
    "xero": Xero,
    "quickbooks": QuickBooks,
    "plain": Plain,
    "jobs": Jobs,
}
