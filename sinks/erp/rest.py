"""The generic REST adapter: one request per posting, described by configuration.

Guarantee: that of the ERP, as `idempotency` describes it. With `lookup_first` the key is looked for before every
submit: a posting that is there is answered, other content is a conflict, and an upsert never rewrites.
Unit of parallelism: one batch at a time, its requests one after the other; the first that tells nothing ends it.
If the process dies in a call: that one posting is unknown, later ones of the batch were not sent.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

import httpx
import orjson

from config.erp_rest import BalancesCall, Call, CustomerBalancesCall, Listing, RestOptions, Rule
from core.errors import ConfigError, Unreachable
from sinks.erp.checks import opposite_problem, problem
from sinks.erp.http_calls import Answer, HttpCalls, authorization, failed, retry_after_s
from sinks.erp.port import (
    Accepted,
    Capabilities,
    Conflict,
    ErpEntry,
    Idempotency,
    Issue,
    MasterData,
    NotSent,
    Outcome,
    Posted,
    Posting,
    PostingLine,
    Rejected,
    Throttled,
    Unknown,
    Window,
)
from sinks.erp.rest_entries import entries, items
from sinks.erp.rest_template import decimal_or_none, fill, find, line_values, posting_values, render

BATCH_S_MAX: Final = 30.0
"""A batch ends early after this long: it must not outlive the poster's lease."""
_WRONG_ADDRESS: Final = (404, 405, 410)


class RestAdapter:
    """Books over HTTP and JSON."""

    name = "rest"

    def __init__(
        self,
        options: RestOptions,
        company: str,
        *,
        transport: httpx.BaseTransport | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._company = company
        self._monotonic_s = monotonic_s
        headers = {"Accept": "application/json", **options.headers}
        self._calls = HttpCalls(
            options.url, lambda: authorization(options.auth), options.timeout_s, headers=headers, transport=transport
        )
        self.capabilities = _capabilities(options)

    def _problem(self, posting: Posting) -> Rejected | None:
        allowed = self._options.currencies
        if allowed and posting.currency not in allowed:
            text = f"posting {posting.key}: this ERP books {', '.join(allowed)} only, not {posting.currency}"
            return Rejected("unknown_currency", text)
        return problem(posting, self._options.lines_max, self._options.required_dimensions)

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        """Check size, balance, currency and dimensions; the ERP is not asked."""
        found = ((posting, self._problem(posting)) for posting in postings)
        return [Issue(posting.key, wrong.reason, wrong.text) for posting, wrong in found if wrong is not None]

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        """Book one after the other."""
        outcomes: list[Outcome] = []
        until_s = self._monotonic_s() + BATCH_S_MAX
        for posting in postings:
            if outcomes and self._monotonic_s() > until_s:
                break
            outcome = self._problem(posting) or self._known(posting) or self._book(posting, attempt_id)
            if isinstance(outcome, Posted) and not outcome.replayed and self._asks_draft(posting):
                outcome = replace(outcome, draft=True)
            outcomes.append(outcome)
            if isinstance(outcome, NotSent | Throttled | Unknown):
                break
        return outcomes + [NotSent("not reached") for _ in postings[len(outcomes) :]]

    def _asks_draft(self, posting: Posting) -> bool:
        """Tell whether the template asks for a draft, where drafts can be read back."""
        asked = posting.invoice is not None and posting.extra.get("state") == "draft"
        return asked and self._options.entry.state is not None

    def _known(self, posting: Posting) -> Outcome | None:
        """Return the outcome of a posting the ERP has already."""
        if not self._options.idempotency.lookup_first:
            return None
        try:
            found = self._find(posting.key)
        except Unreachable as error:
            return NotSent(str(error))
        if len(found) > 1:
            return Unknown(f"the ERP has {len(found)} entries of {posting.key}; the lookup raises the alarm")
        if not found:
            return None
        (entry,) = found
        if entry.digest and entry.digest != posting.digest:
            return Conflict(entry.number, entry.digest)
        return Posted(entry.number, replayed=True, draft=entry.draft)

    def _book(self, posting: Posting, attempt_id: str) -> Outcome:
        submit = self._options.submit
        values = posting_values(posting, attempt_id)
        if submit.body is not None:
            lines = [{**values, **line_values(line, number)} for number, line in enumerate(posting.lines, 1)]
            values["lines"] = [render(submit.line, line) for line in lines]
        answer = self._send(submit, values)
        return self._meaning(answer, self._options.outcomes, "") if isinstance(answer, Answer) else answer

    def _send(self, call: Call, values: dict[str, Any]) -> Any:
        body = None if call.body is None else orjson.dumps(render(call.body, values))
        return self._calls.send(
            call.method,
            fill(call.path, values, is_path=True),
            query={name: fill(text, values) for name, text in call.query.items()},
            headers={name: fill(text, values) for name, text in call.headers.items()},
            body=body,
        )

    @staticmethod
    def _meaning(answer: Answer, rules: Sequence[Rule], job: str) -> Outcome:
        """Return what an answer means: by the first rule that fits, else by its status; never good without a rule."""
        try:
            value = answer.json()
        except ValueError:
            value = None
        rule = next((one for one in rules if _fits(one, answer, value)), None)
        if rule is not None:
            return _outcome(rule, answer, value, job)
        failure = failed(answer)
        if failure is not None:
            return failure
        if answer.status in _WRONG_ADDRESS:
            return NotSent(f"the ERP answered {answer.shown}: check the path in erp.options.submit")
        if answer.status == 409 or (job and answer.status >= 400):  # a poll that is refused says nothing of the job
            return Unknown(f"the ERP answered {answer.shown}")
        if answer.status >= 400:
            return Rejected("invalid", answer.shown, answer.raw)
        return Unknown(f"no rule of erp.options.outcomes fits the answer {answer.shown}")

    def _find(self, key: str) -> list[ErpEntry]:
        rows = self._rows(self._options.lookup, {"key": key, "company": self._company})
        return [entry for entry, _ in self._entries(rows) if entry.key == key]

    def _entries(self, rows: Iterable[Any]) -> Iterator[tuple[ErpEntry, date | None]]:
        """Return our entries in rows; one without a currency is in the only one there is."""
        only = self._options.currencies[0] if len(self._options.currencies) == 1 else ""
        for entry, day in entries(self._options.entry, rows):
            yield (replace(entry, currency=only) if only and not entry.currency else entry), day

    def _rows(self, listing: Listing, values: dict[str, Any]) -> list[Any]:
        """Return the items of a listing.

        :raises Unreachable: there was no usable answer.
        """
        answer = self._send(listing, values)
        why: object = answer
        if isinstance(answer, Answer):
            if answer.status in listing.missing:
                return []
            why = failed(answer)
            if why is None and answer.status < 300:
                try:
                    return items(answer.json() if answer.body.strip() else None, listing.items)
                except ValueError:
                    why = None
            why = why or answer.shown
        message = f"the ERP at {self._options.url} gave no answer to a query: {why}. Check erp.options and the server"
        raise Unreachable(message)

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        """Find entries by key, one request each."""
        return {key: self._find(key) for key in keys}

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        """Ask for the outcome of jobs, one request each."""
        call = self._options.poll
        if call is None:
            return [Unknown(f"this ERP has no jobs, asked for {job}") for job in jobs]
        outcomes: list[Outcome] = []
        for job in jobs:
            answer = self._send(call, {"job": job, "company": self._company})
            outcome = self._meaning(answer, self._options.poll_outcomes, job) if isinstance(answer, Answer) else answer
            # A poll that failed says nothing about the job: ask again.
            outcomes.append(Accepted(job) if isinstance(outcome, NotSent | Throttled) else outcome)
        return outcomes

    def reverse(self, entry: ErpEntry, posting: Posting) -> Outcome:
        """Book the opposite entry; refuse one that is not the opposite, where the lines of an entry can be read."""
        wrong = opposite_problem(entry, posting, self.expected) if self.capabilities.reads_lines else None
        return wrong or self.submit([posting], posting.key)[0]

    def sweep(self) -> int:
        """Return 0: one request books, and leaves nothing beside the books."""
        return 0

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        """Read the entries of those booked days, page by page."""
        for entry, day in self._entries(self._pages(window)):
            if day is None or window.first <= day <= window.last:
                yield entry

    def _pages(self, window: Window) -> Iterator[Any]:
        pages = self._options.read_back
        for page in range(pages.pages_max):
            values = {
                "company": self._company,
                "first": window.first.isoformat(),
                "last": window.last.isoformat(),
                "page": page + 1,
                "offset": page * pages.page_size,
                "start": page * pages.page_size + 1,
                "limit": pages.page_size,
            }
            rows = self._rows(pages, values)
            yield from rows
            if len(rows) < pages.page_size:
                return
        message = f"the ERP has more than {pages.pages_max} pages of entries: read back fewer days at once"
        raise Unreachable(message)

    def expected(self, posting: Posting) -> tuple[tuple[str, Decimal], ...]:
        """Return the lines with the ERP's account codes."""
        return tuple((line.account, line.signed) for line in posting.lines)

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """Return the balances, if the options say how to ask for them.

        :raises ConfigError: they do not.
        """
        call = self._options.balances
        if call is None:
            raise ConfigError(["erp.options.balances is missing: it says how to ask this ERP for account balances"])
        totals: dict[tuple[str, str], Decimal] = {}
        for account, currency, _, amount in self._balances(call, {"company": self._company}):
            totals[account, currency] = totals.get((account, currency), Decimal(0)) + amount
        return totals

    def _balances(self, call: BalancesCall, values: dict[str, Any]) -> Iterator[tuple[str, str, str, Decimal]]:
        """Yield account, currency, customer (if the call says where) and amount."""
        for row in self._rows(call, values):
            amount = decimal_or_none(find(call.balance, row))
            account, currency = find(call.account, row), find(call.currency, row)
            if amount is None or not account or not currency:
                message = "a balance of the ERP has no account, currency or amount where erp.options says"
                raise Unreachable(message)
            customer = find(call.customer, row) if isinstance(call, CustomerBalancesCall) else ""
            yield account, currency, customer, amount

    def named_customer(self, posting: Posting, line: PostingLine) -> str:
        """Return what the template of a line sends: the customer's code, our id, or nothing."""
        sent = {"party": line.party, "customer": line.customer, "": None}[self._options.line_customer]
        return sent or ""

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        """Return the balances by customer, if the options say how to ask for them."""
        call = self._options.customer_balances
        if call is None:
            return None
        values = {"company": self._company, "until": None if until is None else until.isoformat()}
        totals: dict[tuple[str, str, str], Decimal] = {}
        for account, currency, customer, amount in self._balances(call, values):
            if account in accounts:
                place = (account, currency, customer)
                totals[place] = totals.get(place, Decimal(0)) + amount
        return totals

    def master_data(self) -> MasterData:
        """Return nothing: a generic ERP's master data are not read, its own checks decide."""
        return MasterData(())


def _capabilities(options: RestOptions) -> Capabilities:
    """Return the capabilities. The rate is that of batches, since a batch is what the poster counts."""
    calls = 2 if options.idempotency.lookup_first else 1
    batch, rate_per_s = options.batch_documents, 0.0
    if options.rate_per_s:
        batch = max(1, min(batch, options.burst // calls))
        rate_per_s = options.rate_per_s / (batch * calls)
    return Capabilities(
        idempotency=Idempotency(options.idempotency.kind),
        postings_max=batch,
        lines_max=options.lines_max,
        rate_per_s=rate_per_s,
        settle_window_s=options.idempotency.settle_window_s,
        settle_lookups=options.idempotency.settle_lookups,
        reads_lines=bool(options.entry.lines),
        lines_per_month_max=options.lines_per_month_max,
    )


def _fits(rule: Rule, answer: Answer, value: Any) -> bool:
    if rule.status and answer.status not in rule.status:
        return False
    if rule.text and not re.search(rule.text, answer.body):
        return False
    return rule.has is None or bool(find(rule.has, value, answer.headers))


def _outcome(rule: Rule, answer: Answer, value: Any, job: str) -> Outcome:
    match rule.outcome:
        case "posted":
            number = find(rule.number, value, answer.headers) if rule.number else ""
            return Posted(number) if number else Unknown(f"the ERP answered success without a number: {answer.shown}")
        case "accepted":
            job = find(rule.job, value, answer.headers) if rule.job else job
            return Accepted(job) if job else Unknown(f"the ERP took it without naming a job: {answer.shown}")
        case "rejected":
            return Rejected(rule.reason, answer.shown, answer.raw)
        case "conflict":
            return Conflict(answer.shown, "")
        case "throttled":
            return Throttled(retry_after_s(answer))
        case "not_sent":
            return NotSent(f"the ERP answered {answer.shown}")
        case "exists":
            return Unknown(f"the ERP says it has this key: {answer.shown}")
        case _:
            return Unknown(f"the ERP answered {answer.shown}")
