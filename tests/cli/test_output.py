"""Printing: JSON exact, tables literal."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from rich.console import Console

from cli.context import Context, context, start
from cli.output import note, progress, table, to_json


def test_json_keeps_decimals_exact() -> None:
    data = {
        "amount": Decimal("1E-7"),
        "large": Decimal("12345678901234567890.123456789012"),
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "path": Path("a/b"),
        "cutoff": timedelta(days=5),
        "set": {"b", "a"},
    }
    assert json.loads(to_json(data)) == {
        "amount": "0.0000001",
        "large": "12345678901234567890.123456789012",
        "time": "2026-01-01T00:00:00+00:00",
        "path": "a/b",
        "cutoff": 432000.0,
        "set": ["a", "b"],
    }


def test_cells_are_printed_as_they_are() -> None:
    console = Console(width=80, record=True)
    with console.capture() as capture:
        console.print(table("", ("a", "b"), [("[red]x[/red]", None)]))
    assert "[red]x[/red]" in capture.get()


def test_nothing_but_json_with_json() -> None:
    before = context()
    errors = Console(stderr=True, force_terminal=True, record=True)
    start(Context(json=True, error_console=errors))
    try:
        with errors.capture() as capture, progress("Working", 3) as advance:
            note("a note")
            advance(1)
        assert capture.get() == ""
        start(Context(json=False, error_console=errors))
        with errors.capture() as capture, progress("Working", 3) as advance:
            note("a note")
            advance(1)
        assert "a note" in capture.get()
        assert "Working" in capture.get()
    finally:
        start(before)
