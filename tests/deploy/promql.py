"""Finds the series that a PromQL expression names: no parser, but enough for expressions that promtool accepts."""

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>[0-9][0-9.a-z]*)|(?P<sign>\S)'
)
_WORDS: Final = frozenset(
    "by without on ignoring group_left group_right and or unless bool offset inf nan".split()  # noqa: SIM905
)
_LISTS: Final = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))


@dataclass(frozen=True, slots=True)
class Selector:
    """A series name and the labels it is chosen by."""

    name: str
    labels: frozenset[str]


def selectors(expression: str) -> list[Selector]:
    """Return the selectors of an expression in their order."""
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(re.sub(r"\[[^\]]*\]", "", expression))]
    found = []
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and text in _LISTS and after == "(":
            at = _end(tokens, at + 1, ")")
        elif kind == "name" and text not in _WORDS and after not in {"("} and not _is_aggregation(text, after):
            labels: frozenset[str] = frozenset()
            if after == "{":
                end = _end(tokens, at + 1, "}")
                inside = tokens[at + 2 : end]
                labels = frozenset(name for (which, name) in inside if which == "name")
                at = end
            found.append(Selector(text, labels))
        at += 1
    return found


def _is_aggregation(text: str, after: str) -> bool:
    return after in {"by", "without"} and text.isalpha()


def _end(tokens: list[tuple[str, str]], at: int, closing: str) -> int:
    while tokens[at][1] != closing:
        at += 1
    return at
