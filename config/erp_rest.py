"""Options of the generic REST adapter: calls, templates, rules from an answer to an outcome, fields of an entry."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.base import Model
from config.erp_options import HttpUrl, RestAuth, Timeout

POSTING_FIELDS: Final = frozenset(
    {
        "key", "digest", "company", "entity", "currency", "accounting_period", "posting_date", "booked_day", "kind",
        "description", "customer", "reverses", "trace_url", "attempt_id", "documents", "lines", "state",
    }
)  # fmt: skip
LINE_FIELDS: Final = frozenset(
    {
        "account", "account_role", "side", "side_title", "amount", "signed", "debit", "credit", "customer", "party",
        "tax_code", "dimensions", "line",
    }
)  # fmt: skip
PAGE_FIELDS: Final = frozenset({"company", "first", "last", "page", "offset", "start", "limit"})
PLACEHOLDER: Final = re.compile(r"\{([a-z_]+(?:\.[A-Za-z0-9_.:-]+)?)(:number)?\}")
"""`{name}`, `{dimension.NAME}`, or `{name:number}` for a JSON number; any other brace is text."""

Method = Literal["GET", "POST", "PUT", "PATCH"]
RejectedReason = Literal[
    "unbalanced", "unknown_account", "unknown_customer", "unknown_currency", "unknown_tax", "unknown_dimension",
    "missing_dimension", "closed_period", "invalid",
]  # fmt: skip


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        message = f"is not a regular expression: {error}"
        raise ValueError(message) from error
    return value


Regex = Annotated[str, AfterValidator(_regex), Field(max_length=1000)]


class Place(Model):
    """Where a value is in an answer: a dotted path (`Elements.0.ID`) or `header.NAME`; a pattern's group takes a part.

    Written short as the path alone.
    """

    path: str
    pattern: Regex = ""

    @model_validator(mode="after")
    def _one_group(self) -> "Place":
        if self.pattern and re.compile(self.pattern).groups != 1:
            message = "the pattern needs exactly one group, around the value"
            raise ValueError(message)
        return self


def _short(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Where = Annotated[Place, BeforeValidator(_short)]


class Call(Model):
    """One request. Path, query, headers and body are templates."""

    method: Method = "GET"
    path: str
    query: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None


class SubmitCall(Call):
    """The request that books one posting. The body's `"{lines}"` becomes the list of `line` for each line."""

    method: Method = "POST"
    line: Any = None


class Rule(Model):
    """The first rule whose conditions all hold says what an answer means."""

    status: tuple[int, ...] = ()
    """Any of these; empty is any."""
    text: Regex = ""
    """Found in the body as text."""
    has: Where | None = None
    """This value is there, and not empty."""
    outcome: Literal["posted", "accepted", "rejected", "exists", "conflict", "throttled", "not_sent", "unknown"]
    reason: RejectedReason = "invalid"
    number: Where | None = None
    """For `posted`: the ERP's own number. Without one it is not posted."""
    job: Where | None = None
    """For `accepted` of a submit: where the job's id is."""

    @model_validator(mode="after")
    def _complete(self) -> "Rule":
        if self.outcome == "posted" and self.number is None:
            message = "outcome posted needs `number`: where the ERP's own number is"
            raise ValueError(message)
        return self


class EntryFields(Model):
    """Where the fields of an entry are, for lookups and read-backs."""

    key: Where
    number: Where
    digest: Where | None = None
    currency: Where | None = None
    date: Where | None = None
    day: Where | None = None
    """The booked day; without it a read-back trusts the ERP's own filter."""
    lines: str = ""
    """Path of the list of lines; empty: lines cannot be read."""
    account: Where = Place(path="account")
    amount: Where | None = None
    """Signed, debit positive; or an amount whose side is in `side`."""
    side: Where | None = None
    debit_side: str = "Debit"
    """What `side` says for a debit."""
    debit: Where | None = None
    credit: Where | None = None
    state: Where | None = None
    """For an ERP that keeps invoices as drafts where `submit` says `{state}`: whether this one still is."""
    draft_states: tuple[str, ...] = ("draft",)
    void_states: tuple[str, ...] = ("void", "cancelled")
    """A draft that was given up: nothing of it is in the books."""
    changed_by: Where | None = None
    changed_at: Where | None = None
    """Who changed a draft last and when, RFC 3339; for the record of the adjustment."""

    @model_validator(mode="after")
    def _amounts(self) -> "EntryFields":
        if self.lines and self.amount is None and (self.debit is None or self.credit is None):
            message = "lines need either `amount` or both `debit` and `credit`"
            raise ValueError(message)
        return self


class Listing(Call):
    """A request that answers with entries: at `items`, a list or one object; one of `missing` is none."""

    items: str = ""
    missing: tuple[int, ...] = (404,)


class Pages(Listing):
    """A listing in pages: `{page}` and `{start}` from 1, `{offset}` from 0, `{limit}`; a page not full is the last."""

    page_size: int = Field(default=100, ge=1, le=10_000)
    pages_max: int = Field(default=100_000, ge=1)


class BalancesCall(Listing):
    """A request that answers with balances by account."""

    account: Where
    currency: Where
    balance: Where
    """Debit positive."""


class CustomerBalancesCall(BalancesCall):
    """A request that answers with balances by account and customer; `{until}` is the last day, empty for all."""

    customer: Where
    """What `submit.line` sends as `{party}` or `{customer}`; empty where an entry names none."""


class RestIdempotency(Model):
    """What keeps a repeated key from being booked twice, and how long a lost request may still take effect."""

    kind: Literal["unique_key", "upsert", "key_header", "search_only", "async_job"]
    lookup_first: bool = True
    """Ask by key before each submit: a repeat of an upsert would rewrite, one after a key's lifetime would double."""
    settle_window_s: float = Field(default=60.0, ge=0)
    settle_lookups: int = Field(default=2, ge=1)


class RestOptions(Model):
    """A generic ERP over HTTP and JSON."""

    url: HttpUrl
    auth: RestAuth
    timeout_s: Timeout = 30.0
    headers: dict[str, str] = Field(default_factory=dict)
    idempotency: RestIdempotency
    rate_per_s: float = Field(default=0.0, ge=0)
    burst: int = Field(default=1, ge=1)
    batch_documents: int = Field(default=20, ge=1, le=100)
    """Requests of one batch, one after the other."""
    lines_max: int = Field(default=1000, ge=2, le=100_000)
    lines_per_month_max: int = Field(default=0, ge=0)
    currencies: tuple[str, ...] = ()
    """The only currencies it can book in; empty is any. With exactly one, entries without a currency are in it."""
    required_dimensions: tuple[str, ...] = ()
    submit: SubmitCall
    outcomes: tuple[Rule, ...] = Field(min_length=1)
    lookup: Listing
    entry: EntryFields
    poll: Call | None = None
    """For jobs; `{job}` is the job's id. `poll_outcomes` says what the answer means."""
    poll_outcomes: tuple[Rule, ...] = ()
    read_back: Pages
    balances: BalancesCall | None = None
    customer_balances: CustomerBalancesCall | None = None
    """For `meterbridge report unbilled --erp` by customer."""

    @property
    def line_customer(self) -> Literal["party", "customer", ""]:
        """Return what a line tells the ERP about the customer."""
        sent = set(_texts(self.submit.line))
        return "party" if "{party}" in sent else "customer" if "{customer}" in sent else ""

    @model_validator(mode="after")
    def _whole(self) -> "RestOptions":
        problems = [*self._jobs(), *self._placeholders(), *self._keyed()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _jobs(self) -> Iterator[str]:
        accepts = any(rule.outcome == "accepted" for rule in self.outcomes)
        if accepts != (self.poll is not None) or (self.poll is not None) != bool(self.poll_outcomes):
            yield "an outcome `accepted` needs `poll` and `poll_outcomes`, and they need it"
        if self.poll is not None and self.entry.state is not None:
            yield "drafts (`entry.state`) cannot be told from posted entries where the ERP answers with jobs"
        if any(rule.outcome == "accepted" and rule.job is None for rule in self.outcomes):
            yield "outcome accepted of a submit needs `job`: where the job's id is"

    def _keyed(self) -> Iterator[str]:
        submit = self.submit
        if self.idempotency.kind == "upsert" and "{key}" not in submit.path:
            yield "an upsert needs {key} in `submit.path`"
        header_or_query = [*submit.headers.values(), *submit.query.values()]
        if self.idempotency.kind == "key_header" and not any("{key}" in text for text in header_or_query):
            yield "key_header needs {key} in a header or in the query of `submit`"
        if not any("{key" in text for text in _texts([self.lookup.path, self.lookup.query, self.lookup.body])):
            yield "`lookup` needs {key} in its path, query or body"

    def _placeholders(self) -> Iterator[str]:
        submit = self.submit
        yield from _unknown("submit", [submit.path, submit.query, submit.headers, submit.body], POSTING_FIELDS)
        yield from _unknown("submit.line", submit.line, LINE_FIELDS | POSTING_FIELDS - {"lines"})
        lookup = self.lookup
        yield from _unknown("lookup", [lookup.path, lookup.query, lookup.headers, lookup.body], {"key", "company"})
        pages = self.read_back
        yield from _unknown("read_back", [pages.path, pages.query, pages.headers, pages.body], PAGE_FIELDS)
        if (call := self.customer_balances) is not None:
            known = {"company", "until"}
            yield from _unknown("customer_balances", [call.path, call.query, call.headers, call.body], known)
        if self.poll is not None:
            yield from _unknown("poll", [self.poll.path, self.poll.query, self.poll.body], {"job", "company"})


def _texts(template: Any) -> Iterator[str]:
    """Return every text of a template."""
    if isinstance(template, str):
        yield template
    elif isinstance(template, dict):
        for value in template.values():
            yield from _texts(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from _texts(value)


def _unknown(where: str, template: Any, known: frozenset[str] | set[str]) -> Iterator[str]:
    for text in _texts(template):
        for match in PLACEHOLDER.finditer(text):
            name = match[1]
            if name not in known and not (name.startswith("dimension.") and "account" in known):
                yield f"`{where}` has the unknown placeholder {{{name}}}: known are {', '.join(sorted(known))}"
