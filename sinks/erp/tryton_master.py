"""Tryton's accounts, parties, currencies and periods by code, remembered for a while."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from core.errors import ConfigError
from sinks.erp.port import Issue, MasterData, Posting, Record
from sinks.erp.tryton_client import TrytonClient, date_value

REMEMBER_S: Final = 60.0
CODES_PER_QUERY: Final = 40
"""Codes stand in the address of a query, which servers limit."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account one can post to, between its days."""

    id: int
    needs_party: bool
    first: date | None
    last: date | None

    def is_open(self, day: date) -> bool:
        """Tell whether it may be posted to on that day."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def _day(value: Any) -> date | None:
    return None if value is None else date(value["year"], value["month"], value["day"])


def _tax_issue(posting: Posting, taxes: dict[str, int]) -> Issue | None:
    for tax in (posting.invoice and posting.invoice.tax_codes) or ():
        if tax and tax not in taxes:
            return Issue(posting.key, "unknown_tax", f"posting {posting.key}: Tryton has no one tax named {tax!r}")
    return None


class TrytonMaster:
    """Looks codes up; what was found is remembered for REMEMBER_S, what was not is asked again each time."""

    def __init__(self, client: TrytonClient, monotonic_s: Callable[[], float]) -> None:
        self._client = client
        self._monotonic_s = monotonic_s
        self._found: dict[tuple[str, Any], tuple[float, Any]] = {}

    def _get(self, kind: str, keys: Collection[Any], load: Callable[[list[Any]], dict[Any, Any]]) -> dict[Any, Any]:
        now_s = self._monotonic_s()
        known = {
            key: entry[1]
            for key in keys
            if (entry := self._found.get((kind, key))) is not None and now_s - entry[0] < REMEMBER_S
        }
        missing = sorted({key for key in keys if key not in known})
        for start in range(0, len(missing), CODES_PER_QUERY):
            loaded = load(missing[start : start + CODES_PER_QUERY])
            known |= loaded
            self._found |= {(kind, key): (now_s, value) for key, value in loaded.items()}
        return known

    def accounts(self, codes: Collection[str]) -> dict[str, Account]:
        """Return the accounts of these codes that can be posted to."""

        def load(wanted: list[str]) -> dict[str, Account]:
            domain = [
                ["company", "=", self._client.company()],
                ["code", "in", wanted],
                ["type", "!=", None],
                ["closed", "!=", True],
            ]
            fields = ["code", "party_required", "start_date", "end_date"]
            rows = self._client.search("account.account", domain, fields)
            return {
                row["code"]: Account(
                    row["id"], bool(row["party_required"]), _day(row["start_date"]), _day(row["end_date"])
                )
                for row in rows
            }

        return self._get("account", codes, load)

    def ids(self, model: str, codes: Collection[str]) -> dict[str, int]:
        """Return the ids of a model's records by code."""

        def load(wanted: list[str]) -> dict[str, int]:
            rows = self._client.search(model, [["code", "in", wanted]], ["code"])
            return {row["code"]: row["id"] for row in rows}

        return self._get(model, codes, load)

    def taxes(self, names: Collection[str]) -> dict[str, int]:
        """Return the ids of the company's taxes by name; a name that several have finds none."""

        def load(wanted: list[str]) -> dict[str, int]:
            rows = self._client.search("account.tax", self._taxes(["name", "in", wanted]), ["name"])
            counts = Counter(row["name"] for row in rows)
            return {row["name"]: row["id"] for row in rows if counts[row["name"]] == 1}

        return self._get("tax", names, load)

    def _taxes(self, *more: list[Any]) -> list[Any]:
        return [["company", "=", self._client.company()], ["parent", "=", None], *more]

    def currency(self) -> str:
        """Return the code of the company's currency."""

        def load(wanted: list[int]) -> dict[int, str]:
            rows = self._client.search("company.company", [["id", "in", wanted]], ["currency.code"])
            return {row["id"]: row["currency"]["code"] for row in rows}

        company = self._client.company()
        found = self._get("company", [company], load)
        if company not in found:
            raise ConfigError([f"Tryton has no company {company}, or the user has no access to it"])
        return str(found[company])

    def open_periods(self, days: Collection[date]) -> dict[date, int]:
        """Return the open standard period of each day that has one."""

        def load(wanted: list[date]) -> dict[date, int]:
            domain = [
                ["company", "=", self._client.company()],
                ["type", "=", "standard"],
                ["state", "=", "open"],
                ["start_date", "<=", date_value(max(wanted))],
                ["end_date", ">=", date_value(min(wanted))],
            ]
            rows = self._client.search("account.period", domain, ["start_date", "end_date"])
            spans = [(_day(row["start_date"]), _day(row["end_date"]), row["id"]) for row in rows]
            return {
                day: number
                for day in wanted
                for first, last, number in spans
                if first is not None and last is not None and first <= day <= last
            }

        return self._get("period", days, load)

    def issues(self, postings: Collection[Posting]) -> list[Issue]:
        """Return what the ERP lacks for these postings: accounts, parties, an open period."""
        accounts = self.accounts({line.account for one in postings for line in one.lines})
        wanted = {line.party for one in postings for line in one.lines if line.party}
        wanted |= {one.invoice.party for one in postings if one.invoice is not None}
        parties = self.ids("party.party", wanted)
        taxes = self.taxes({tax for one in postings for tax in (one.invoice and one.invoice.tax_codes) or () if tax})
        periods = self.open_periods({one.posting_date for one in postings})
        found = []
        for one in postings:
            issue = self._issue(one, accounts, parties) or _tax_issue(one, taxes)
            if issue is None and one.posting_date not in periods:
                text = f"posting {one.key}: Tryton has no open period on {one.posting_date}"
                issue = Issue(one.key, "closed_period", text)
            if issue is not None:
                found.append(issue)
        return found

    @staticmethod
    def _issue(posting: Posting, accounts: dict[str, Account], parties: dict[str, int]) -> Issue | None:
        if posting.invoice is not None and posting.invoice.party not in parties:
            text = f"posting {posting.key}: Tryton has no party {posting.invoice.party!r}"
            return Issue(posting.key, "unknown_customer", text)
        for line in posting.lines:
            account = accounts.get(line.account)
            if account is None or not account.is_open(posting.posting_date):
                text = f"posting {posting.key}: Tryton has no account {line.account!r} on {posting.posting_date}"
                return Issue(posting.key, "unknown_account", text)
            if account.needs_party and posting.invoice is None and line.party not in parties:
                what = f"no party {line.party!r}" if line.party else f"account {line.account} needs a party"
                return Issue(posting.key, "unknown_customer", f"posting {posting.key}: Tryton: {what}")
        return None

    def everything(self) -> MasterData:
        """Read all parties, accounts, taxes, currencies and periods of the company."""
        search, company = self._client.search, self._client.company()
        records = [
            Record("account", row["code"], row["rec_name"], not row["closed"])
            for row in search(
                "account.account",
                [["company", "=", company], ["type", "!=", None], ["code", "!=", None]],
                ["code", "rec_name", "closed"],
            )
        ]
        for row in search("party.party", [["code", "!=", None]], ["code", "rec_name", "active"]):
            records.append(Record("party", row["code"], row["rec_name"], bool(row["active"])))
        for row in search("account.tax", self._taxes(), ["name", "rec_name"]):
            records.append(Record("tax", row["name"], row["rec_name"]))
        for row in search("currency.currency", [], ["code", "rec_name"]):
            records.append(Record("currency", row["code"], row["rec_name"]))
        periods = search(
            "account.period",
            [["company", "=", company], ["type", "=", "standard"]],
            ["start_date", "rec_name", "state"],
        )
        for row in periods:
            first = _day(row["start_date"])
            if first is not None:
                records.append(Record("period", f"{first:%Y-%m}", row["rec_name"], row["state"] == "open"))
        kinds = frozenset({"account", "party", "currency", "period", "tax"})
        return MasterData(tuple(records), kinds)
