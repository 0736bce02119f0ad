"""Reads the worked examples out of a Markdown page: a charge in YAML, and a table of quantities and amounts."""

import ast
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import yaml

from operators.rating.charges import Charge, parse_charge

_EXAMPLE = re.compile(r"```yaml\n(?P<charge>.*?)```\n\n(?P<table>(?:\|[^\n]*\n)+)", re.DOTALL)
_CONSOLE = re.compile(r"```console\n\$ meterbridge (?P<command>[^\n]+)\n(?P<output>.*?)```", re.DOTALL)
_NUMBERS = re.compile(r"[-0-9.,+/x%() ]+")


@dataclass(frozen=True)
class Example:
    """One row of a table with its charge."""

    charge: Charge
    raw: dict[str, Any]
    cells: dict[str, str]


def examples(page: str) -> list[Example]:
    """Return every row of every table that follows a charge."""
    found = []
    for match in _EXAMPLE.finditer(page):
        raw = yaml.safe_load(match["charge"])
        header, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in _lines(match["table"]))
        charge = parse_charge({"id": "c", "meter": "m"} | raw)
        found += [Example(charge, raw, dict(zip(header, row, strict=True))) for row in rows]
    return found


def consoles(page: str) -> list[tuple[str, str]]:
    """Return each command shown with its output."""
    return [(match["command"], match["output"]) for match in _CONSOLE.finditer(page)]


def equations(calculation: str) -> list[tuple[Fraction, Fraction]]:
    """Return both sides of every `10 x 2 = 20` in a calculation; words around are left out."""
    found = []
    for piece in calculation.split(";"):
        left, equals, right = piece.partition("=")
        if equals:
            assert "=" not in right, f"write a semicolon between two equations: {piece}"
            second = _NUMBERS.match(right)
            assert second is not None, piece
            found.append((_value(_NUMBERS.findall(left)[-1]), _value(second[0].rstrip(" ,("))))
    return found


def _lines(table: str) -> list[str]:
    return table.strip().splitlines()


def _value(text: str) -> Fraction:
    """Evaluate numbers with + - x / ( ) and a percent sign behind a number, exactly."""
    plain = re.sub(r"([0-9.]+) %", r"(\1 / 100)", text.strip()).replace("x", "*")
    exact = re.sub(r"[0-9]+(?:\.[0-9]+)?", lambda match: f"F('{match[0]}')", plain)
    tree = ast.parse(exact, mode="eval")
    return Fraction(eval(compile(tree, "calculation", "eval"), {"__builtins__": {}, "F": Fraction}))  # noqa: S307
