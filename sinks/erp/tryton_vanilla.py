"""The Tryton adapter without our module: drafts first, so that at most one entry per key is ever posted.

Plain Tryton has no unique key; our key stands at the beginning of the description. A request whose answer was lost
may still take effect later, but all it can leave is one more draft, which is in no report and is deleted later.

Guarantee: one posted entry per key, by this protocol for each posting:
 1. look for entries with the key. A posted one: that is it. Dying here changed nothing.
 2. make a draft and look again. Dying here leaves a draft.
 3. delete all drafts but the one with the lowest id; only if every deletion succeeded go on. Dying here: as 2.
 4. post that one. Posting is a change of state: a second request to post it is refused. Dying here: step 1 finds it.
A request of steps 1 and 2 that arrives late can add a draft, and one of step 4 only posts the draft all agree on.
Unit of parallelism: one writer per company.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from config.erp_options import TrytonOptions
from core.errors import MeterbridgeError, Unreachable
from sinks.erp.checks import opposite_problem, problem
from sinks.erp.http_calls import Answer, Failure
from sinks.erp.port import (
    Capabilities,
    Conflict,
    ErpEntry,
    Idempotency,
    Issue,
    NotSent,
    Outcome,
    Posted,
    Posting,
    Rejected,
    Unknown,
    Window,
)
from sinks.erp.tryton_base import LINES_MAX, TrytonBase
from sinks.erp.tryton_client import date_value, decimal_value, refusal
from sinks.erp.tryton_documents import booked_day, line_text
from sinks.erp.tryton_master import CODES_PER_QUERY

POSTINGS_MAX: Final = 20
"""Each takes four calls of some 60 ms, all within the poster's lease."""
DAYS_PER_QUERY: Final = 31
_MODEL: Final = "account.move"
_MARK: Final = re.compile(r"^\[mb:(\d{4}-\d{2}-\d{2}):([^:\]]+):([0-9a-f]{64})\]")
_FIELDS: Final = ["number", "state", "description", "date"]
_LINES: Final = ["lines.debit", "lines.credit", "lines.account.code"]


@dataclass(frozen=True, slots=True)
class _Move:
    """A move of ours as Tryton has it."""

    id: int
    key: str
    digest: str
    number: str
    posted: bool
    row: dict[str, Any]


class TrytonVanillaAdapter(TrytonBase):
    """Books into one company of one Tryton database, in the company's own currency."""

    name = "tryton-vanilla"

    def __init__(self, options: TrytonOptions, company: str, **more: Any) -> None:
        super().__init__(options, company, **more)
        self.capabilities = Capabilities(
            idempotency=Idempotency.SEARCH_ONLY,
            preflight_asks=True,
            two_phase=True,
            postings_max=min(POSTINGS_MAX, options.batch_documents),
            lines_max=LINES_MAX,
            settle_window_s=options.settle_window_s,
        )

    def _problem(self, posting: Posting) -> Rejected | None:
        found = problem(posting, LINES_MAX, self._options.required_dimensions)
        if found is None and posting.currency != self._master.currency():
            # The ERP converts; plain Tryton wants both amounts from us, and which rate is not ours to decide.
            text = f"posting {posting.key}: tryton-vanilla books {self._master.currency()} only, not {posting.currency}"
            return Rejected("unknown_currency", text)
        return found

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        """Check size, balance, currency and dimensions, and that Tryton has the accounts, parties and open periods."""
        found = [(posting, self._problem(posting)) for posting in postings]
        issues = [Issue(posting.key, wrong.reason, wrong.text) for posting, wrong in found if wrong is not None]
        sound = [posting for posting, wrong in found if wrong is None]
        return issues + (self._master.issues(sound) if sound else [])

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        """Book one after the other; the first call that tells nothing ends the batch."""
        outcomes: list[Outcome] = []
        for posting in postings:
            outcome = self._submit(posting)
            outcomes.append(outcome)
            if not isinstance(outcome, Posted | Conflict | Rejected):
                break
        return outcomes + [NotSent("not reached") for _ in postings[len(outcomes) :]]

    def _submit(self, posting: Posting) -> Outcome:
        try:
            wrong = self._problem(posting)
            issues = [] if wrong else self._master.issues([posting])
            known = [] if wrong or issues else self._moves([posting.key])
        except MeterbridgeError as error:
            return NotSent(str(error))  # only queries so far
        if wrong is not None:
            return wrong
        if issues:
            return Rejected(issues[0].reason, issues[0].text)
        try:
            return self._book(posting, known)
        except Unreachable as error:
            return Unknown(str(error))

    def _book(self, posting: Posting, known: list[_Move]) -> Outcome:
        if not any(move.posted or move.digest == posting.digest for move in known):
            failure = refusal(self._client.post(_MODEL, self._values(posting)))
            if failure is not None:
                return failure
            known = self._moves([posting.key])
        posted = [move for move in known if move.posted]
        if posted:
            return _posted(posting, posted)
        ours = [move for move in known if move.digest == posting.digest]
        if not ours:
            return Unknown("the draft that was made is not there")
        for move in known:
            if move.id != ours[0].id and not self._delete(move):
                return Unknown(f"a second draft of {posting.key} ({move.id}) cannot be deleted; it is looked up again")
        return self._post(posting, ours[0])

    def _delete(self, move: _Move) -> bool:
        """Delete a draft; one that is gone counts as deleted, one that got posted meanwhile does not."""
        answer = self._client.delete(_MODEL, move.id)
        return isinstance(answer, Answer) and answer.status in (204, 404)

    def _post(self, posting: Posting, draft: _Move) -> Outcome:
        answer: Answer | Failure = self._client.post(f"{_MODEL}/{draft.id}/post", {})
        failure = refusal(answer)
        if isinstance(failure, Rejected):
            # Refused, or posted already by an earlier request of ours, or deleted by another writer: its state tells.
            known = self._moves([posting.key])
            posted = [move for move in known if move.posted]
            if posted:
                return _posted(posting, posted)
            if all(move.id != draft.id for move in known):
                return Unknown(f"the draft {draft.id} was deleted by somebody else; it is looked up again")
            self._delete(draft)
            return failure
        if failure is not None:
            return failure
        posted = [move for move in self._moves([posting.key]) if move.posted]
        return _posted(posting, posted) if posted else Unknown("Tryton says it posted the entry, and does not have it")

    def _values(self, posting: Posting) -> dict[str, Any]:
        accounts = self._master.accounts({line.account for line in posting.lines})
        parties = self._master.ids("party.party", {line.party for line in posting.lines if line.party})
        lines = []
        for line in posting.lines:
            amount, nothing = decimal_value(format(line.signed.copy_abs(), "f")), decimal_value("0")
            is_debit = line.signed >= 0
            account = accounts[line.account]
            lines.append(
                {
                    "account": account.id,
                    "party": parties.get(line.party or "") if account.needs_party else None,
                    "description": line_text(line),
                    "debit": amount if is_debit else nothing,
                    "credit": nothing if is_debit else amount,
                }
            )
        journals = self._master.ids("account.journal", [self._options.journal])
        if self._options.journal not in journals:
            message = f"Tryton has no journal {self._options.journal!r}: see erp.options.journal"
            raise Unreachable(message)
        return {
            "company": self._client.company(),
            "journal": journals[self._options.journal],
            "period": self._master.open_periods([posting.posting_date])[posting.posting_date],
            "date": date_value(posting.posting_date),
            "description": f"[mb:{booked_day(posting)}:{posting.key}:{posting.digest}] {posting.description}",
            "lines": [["create", lines]],
        }

    def _moves(self, keys: Sequence[str], more: Sequence[str] = ()) -> list[_Move]:
        """Return the moves of these keys by rising id, drafts too."""
        found = []
        for start in range(0, len(keys), CODES_PER_QUERY):
            likes = [["description", "like", f"[mb:%:{key}:%"] for key in keys[start : start + CODES_PER_QUERY]]
            found += self._find(["OR", *likes], more)
        return [move for move in found if move.key in keys]

    def _find(self, domain: Any, more: Sequence[str]) -> list[_Move]:
        wanted = [["company", "=", self._client.company()], domain]
        rows = self._client.search(_MODEL, wanted, [*_FIELDS, *more], limit=self._page)
        found = []
        for row in rows:
            mark = _MARK.match(row["description"] or "")
            if mark:
                posted = row["state"] == "posted"
                found.append(_Move(row["id"], mark[2], mark[3], str(row["number"] or ""), posted, row))
        return found

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        """Find posted entries by key; a draft is not in the books."""
        found: dict[str, list[ErpEntry]] = {key: [] for key in keys}
        for move in self._moves(list(found), _LINES):
            if move.posted:
                found[move.key].append(self._entry(move))
        return found

    def reverse(self, entry: ErpEntry, posting: Posting) -> Outcome:
        """Book the opposite entry; refuse one that is not the opposite."""
        return opposite_problem(entry, posting, self.expected) or self.submit([posting], posting.key)[0]

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        """Read the posted entries of those booked days by rising id; a wide window reads all of ours."""
        days = (window.last - window.first).days + 1
        prefixes = ["[mb:%"]
        if days <= DAYS_PER_QUERY:
            prefixes = [f"[mb:{window.first + timedelta(days=number)}:%" for number in range(days)]
        for move in self._find(["OR", *(["description", "like", prefix] for prefix in prefixes)], _LINES):
            day = date.fromisoformat(str(move.row["description"])[4:14])
            if move.posted and window.first <= day <= window.last:
                yield self._entry(move)

    def sweep(self) -> int:
        """Delete drafts of keys that have a posted entry, which late requests left; return how many."""
        drafts = self._find([["state", "=", "draft"], ["description", "like", "[mb:%"]], ())
        posted = {move.key for move in self._moves([move.key for move in drafts]) if move.posted}
        return sum(self._delete(move) for move in drafts if move.key in posted)

    def _entry(self, move: _Move) -> ErpEntry:
        try:
            day = move.row["date"]
            lines = tuple(
                (str(line["account"]["code"]), _decimal(line["debit"]) - _decimal(line["credit"]))
                for line in move.row["lines"]
            )
            posting_date = date(day["year"], day["month"], day["day"])
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            message = f"Tryton's entry {move.id} cannot be read: {error!r}"
            raise Unreachable(message) from error
        return ErpEntry(move.key, move.number, move.digest, self._master.currency(), posting_date, lines)

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """Sum all posted lines of the company, page by page: slow on large books."""
        totals: dict[tuple[str, str], Decimal] = {}
        for account, currency, _, amount in self._amounts([]):
            totals[account, currency] = totals.get((account, currency), Decimal(0)) + amount
        return totals

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        """Sum the posted lines of these accounts by party, page by page."""
        domain: list[Any] = [["account.code", "in", sorted(accounts)]]
        if until is not None:
            domain.append(["move.date", "<=", date_value(until)])
        totals: dict[tuple[str, str, str], Decimal] = {}
        for account, currency, party, amount in self._amounts(domain):
            place = (account, currency, party)
            totals[place] = totals.get(place, Decimal(0)) + amount
        return totals

    def _amounts(self, more: list[Any]) -> Iterator[tuple[str, str, str, Decimal]]:
        """Yield account, currency, party (empty: none) and amount, debit positive, of the posted lines."""
        domain = [["move.company", "=", self._client.company()], ["move_state", "=", "posted"], *more]
        fields = ["debit", "credit", "account.code", "party.code", "amount_second_currency", "second_currency.code"]
        own = self._master.currency()
        for row in self._client.search("account.move.line", domain, fields):
            second, party = row.get("second_currency"), row.get("party")
            amount = (
                _decimal(row["amount_second_currency"]) if second else _decimal(row["debit"]) - _decimal(row["credit"])
            )
            currency = str(second["code"]) if second else own
            yield str(row["account"]["code"]), currency, str(party["code"] or "") if party else "", amount


def _posted(posting: Posting, posted: list[_Move]) -> Outcome:
    if len(posted) > 1:
        return Unknown(f"Tryton has {len(posted)} posted entries of {posting.key}; the lookup raises the alarm")
    (move,) = posted
    if move.digest != posting.digest:
        return Conflict(move.number, move.digest)
    return Posted(move.number, f"{_MODEL},{move.id}")


def _decimal(value: Any) -> Decimal:
    return Decimal(value["decimal"])
