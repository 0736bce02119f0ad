"""How commands print: JSON for machines, tables for people, a progress bar when a terminal is attached."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.context import context


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError


def to_json(data: Any) -> str:
    """Return indented JSON. Decimals become text without an exponent, times RFC 3339."""
    return orjson.dumps(data, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()


def emit(data: Any, *rendered: RenderableType) -> None:
    """Print `data` as JSON with `--json`, else what was rendered for people."""
    current = context()
    if current.json:
        sys.stdout.write(to_json(data) + "\n")
        return
    for item in rendered:
        current.console.print(item)


def note(text: str) -> None:
    """Tell a person something on standard error; silent with `--json`."""
    current = context()
    if not current.json:
        current.error_console.print(text, highlight=False, markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Table:
    """Return a table; the columns named in `right` are aligned to the right. Cells are printed as they are."""
    from rich.text import Text  # noqa: PLC0415

    result = Table(title=title or None, title_justify="left")
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    return result


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error when a terminal is attached; yields a function that advances it."""
    current = context()
    if not current.shows_progress:
        yield lambda _steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=current.error_console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)


def key_values(values: Mapping[str, Any]) -> Table:
    """Return names and values as a grid without lines."""
    grid = Table.grid(padding=(0, 2))
    for name, value in values.items():
        grid.add_row(str(name), str(value))
    return grid
