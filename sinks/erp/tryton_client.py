"""What both Tryton adapters share: the connection, the context of a company, values, and the meaning of errors.

Tryton's business errors are texts without a code, in the language of `Accept-Language`: English is pinned, and the
stable part of each text is looked for.
"""

import base64
import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import httpx
import orjson

from config.erp_options import RestAuth, TrytonOptions
from core.errors import ConfigError, Unreachable
from sinks.erp.http_calls import Answer, Failure, HttpCalls, authorization, failed
from sinks.erp.port import NotSent, Rejected, Throttled, Unknown

_REASONS: Final[tuple[tuple[str, str], ...]] = (
    (r"closed period|reopen the period|find (?:a|an open) period|no open period|there is no .*period", "closed_period"),
    (r"balance all its lines|Debits minus credits", "unbalanced"),
    (r'(?:value .* for field "Account"|account ".*")', "unknown_account"),
    (r'field "Party"|party', "unknown_customer"),
)
_TAKEN: Final = "must be unique in its company"
_LOCKED: Final = "could not obtain lock"


class TrytonClient:
    """Calls to one company of one Tryton database."""

    def __init__(self, options: TrytonOptions, company: str, transport: httpx.BaseTransport | None = None) -> None:
        self._database = options.database
        self._wanted = company
        self._company: int | None = None
        auth = RestAuth(kind="bearer", credential=options.credential)
        headers = {"Accept": "application/json", "Accept-Language": "en"}
        self._calls = HttpCalls(
            options.url, lambda: authorization(auth), options.timeout_s, headers=headers, transport=transport
        )

    def company(self) -> int:
        """Return the company's id: the configured number, or the only company whose party has that name or code.

        :raises Unreachable: the server does not answer.
        :raises ConfigError: there is no such company.
        """
        if self._company is None:
            self._company = int(self._wanted) if self._wanted.isdecimal() else self._find_company()
        return self._company

    def _find_company(self) -> int:
        domain = ["OR", ["party.name", "=", self._wanted], ["party.code", "=", self._wanted]]
        found = self._search("company.company", domain, ["id"], {})
        if len(found) != 1:
            raise ConfigError([f"erp.company {self._wanted!r} names {len(found)} companies in Tryton: write its id"])
        return int(found[0]["id"])

    def post(self, path: str, body: Any) -> Answer | Failure:
        """Do a call that may change something."""
        return self._calls.send("POST", self._path(path), headers=self._context(), body=orjson.dumps(body))

    def delete(self, model: str, number: int) -> Answer | Failure:
        """Delete one record."""
        return self._calls.send("DELETE", self._path(f"{model}/{number}"), headers=self._context())

    def query(self, path: str, body: Any) -> Any:
        """Do a call of ours that only reads, and return its value.

        :raises Unreachable: there was no usable answer.
        """
        answer = self.post(path, body)
        return self._value(answer)

    def search(self, model: str, domain: Any, fields: list[str], *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return records in the order of their ids, page by page.

        :raises Unreachable: there was no usable answer.
        """
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["id"] if found else 0
            page = self._search(model, [["id", ">", after], domain], fields, self._context(), limit)
            found += page
            if len(page) < limit:
                return found

    def _search(
        self, model: str, domain: Any, fields: list[str], headers: Mapping[str, str], limit: int = 1000
    ) -> list[dict[str, Any]]:
        query = httpx.QueryParams(
            [("d", _encode(domain)), ("o", _encode([["id", "ASC"]])), ("s", str(limit)), *(("f", f) for f in fields)]
        )
        path = f"{self._path(model)}?{query}"
        value = self._value(self._calls.send("GET", path, headers=headers))
        if not isinstance(value, list):
            message = f"Tryton answered a search of {model} with something else than a list"
            raise Unreachable(message)
        return value

    def _value(self, answer: Answer | Failure) -> Any:
        failure: Any = answer
        if isinstance(answer, Answer):
            failure = failed(answer)
            if failure is None and answer.status == 200:
                try:
                    return answer.json()
                except ValueError:
                    failure = Unknown(f"not JSON: {answer.shown}")
            elif failure is None:
                failure = Unknown(answer.shown)
        why = getattr(failure, "why", "it asks to slow down")
        message = f"Tryton at {self._calls.url} gave no answer to a query: {why}. Check erp.options and the server"
        raise Unreachable(message)

    def _path(self, path: str) -> str:
        return f"/{self._database}/rest/model/{path}"

    def _context(self) -> dict[str, str]:
        return {"X-Tryton-Context": _encode({"company": self.company()})}


def _encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def decimal_value(text: str) -> dict[str, str]:
    """Return an amount as Tryton's JSON has it: never a float."""
    return {"__class__": "Decimal", "decimal": text}


def date_value(day: date) -> dict[str, Any]:
    """Return a date as Tryton's JSON has it."""
    return {"__class__": "date", "year": day.year, "month": day.month, "day": day.day}


def refusal(answer: Answer | Failure) -> Rejected | Failure | None:
    """Return what an answer other than a success means, or None for a success.

    A 503 for a lock was rolled back by Tryton after its own retries, so that it is a request to slow down. A key that
    is taken means another request booked it meanwhile: only a lookup tells more.
    """
    if not isinstance(answer, Answer):
        return answer
    if answer.status == 503 and _LOCKED in answer.body:
        return Throttled()
    failure = failed(answer)
    if failure is not None:
        return failure
    if answer.status in (200, 204):
        return None
    if answer.status in (404, 405):  # no such call: nothing was done, and it is no posting's fault
        why = "check erp.options.url and database, and that Tryton has the module the adapter needs"
        return NotSent(f"Tryton answered {answer.shown}: {why}")
    if answer.status == 413:
        return Rejected("invalid", f"Tryton answered {answer.shown}", answer.raw)
    try:
        message = answer.hide(str(answer.json()["message"]))
    except (ValueError, KeyError, TypeError):
        return Unknown(f"Tryton answered {answer.shown}")
    if _TAKEN in message:
        return Unknown("another request booked one of these keys at the same time")
    return Rejected(reason_of(message), message, answer.raw)


def reason_of(message: str) -> str:
    """Return the reason an English message of Tryton stands for."""
    return next((reason for text, reason in _REASONS if re.search(text, message, re.IGNORECASE)), "invalid")
