"""The journal's files and the index of keys over them. All calls happen under the directory's lock."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from core import faults
from core.errors import InvariantViolation, Unreachable
from sinks.erp.journal_format import number_text, quote, read_entries
from sinks.erp.port import ErpEntry

_DAY = re.compile(r"^(\d{4}-\d{2}-\d{2})\.beancount$")
_OPEN = re.compile(r"^1970-01-01 open (\S+)$")
_HEAD: Final = ";; Written by Meterbridge. Entries are only ever added; do not edit.\n\n"
MAIN: Final = "main.beancount"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is booked."""

    number: int
    digest: str
    day: date


class Books:
    """Day files, the main file, and the index rebuilt from them when they changed under us."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._signatures: dict[date, tuple[int, int, int]] = {}
        self._index: dict[str, tuple[Place, ...]] = {}
        self._accounts: dict[str, str] = {}
        self._opened: set[str] = set()
        self._included: set[date] = set()
        self._loaded = False
        self.number_last = 0

    def path(self, day: date) -> Path:
        """Return a day's file."""
        return self._directory / f"{day.year:04d}" / f"{day.isoformat()}.beancount"

    def days(self) -> list[date]:
        """Return the booked days known, in order."""
        return sorted(self._signatures)

    @property
    def accounts(self) -> dict[str, str]:
        """Return the accounts that main opens, name to the ERP's code."""
        return dict(self._accounts)

    def find(self, key: str) -> tuple[Place, ...]:
        """Return where a key is booked; more than one place is an alarm for the caller."""
        return self._index.get(key, ())

    def read(self, day: date) -> Iterator[ErpEntry]:
        """Read one day's entries."""
        for entry in read_entries(self.path(day).read_text(encoding="utf-8")):
            number = number_text(entry.number)
            yield ErpEntry(entry.key, number, entry.digest, entry.currency, entry.posting_date, entry.lines)

    def forget(self) -> None:
        """Forget the index, so that the next refresh reads the files again."""
        self._loaded = False

    def refresh(self) -> None:
        """Read what changed since the last call; repair main if a crash left a day out of it."""
        found = dict(self._scan())
        if self._loaded and found == self._signatures and found.keys() == self._included:
            return
        self._remove_temporaries()
        self._index.clear()
        self.number_last = 0
        for day in sorted(found):
            self._learn(day)
        self._signatures = found
        self._read_main()
        if found.keys() != self._included:
            self.include(found)
        self._loaded = True

    def _scan(self) -> Iterator[tuple[date, tuple[int, int, int]]]:
        for path in self._directory.glob("[0-9][0-9][0-9][0-9]/*.beancount"):
            if match := _DAY.match(path.name):
                yield date.fromisoformat(match[1]), self._signature(path)

    @staticmethod
    def _signature(path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _learn(self, day: date) -> None:
        for entry in read_entries(self.path(day).read_text(encoding="utf-8")):
            self._note(entry.key, Place(entry.number, entry.digest, day))

    def _note(self, key: str, place: Place) -> None:
        self._index[key] = (*self._index.get(key, ()), place)
        self.number_last = max(self.number_last, place.number)

    def append(self, day: date, text: str, entries: Iterable[tuple[str, int, str]]) -> None:
        """Extend a day's file: a new file with the old and the new text takes its place in one step."""
        path = self.path(day)
        before = path.read_bytes() if day in self._signatures else _HEAD.encode()
        if not before.endswith(b"\n\n"):
            before += b"\n\n"  # a hand edit took the empty line away; entries need it between them
        self._replace(path, before + text.encode())
        self._signatures[day] = self._signature(path)
        for key, number, digest in entries:
            self._note(key, Place(number, digest, day))

    def open_accounts(self, accounts: Mapping[str, str]) -> None:
        """Make sure main opens these accounts (name to the ERP's code), before an entry names them."""
        for name, code in accounts.items():
            if self._accounts.setdefault(name, code) != code:
                message = f"journal account {name} stands for code {self._accounts[name]!r} and {code!r}: rename one"
                raise InvariantViolation(message)
        if not accounts.keys() <= self._opened:
            self._write_main(self._included)

    def include(self, days: Iterable[date]) -> None:
        """Make sure main includes these days."""
        wanted = self._included | set(days)
        if wanted != self._included or not self._opened:
            self._write_main(wanted)

    def _write_main(self, days: set[date]) -> None:
        rows = [_HEAD.rstrip("\n"), "", 'option "title" "Meterbridge"', ""]
        for name in sorted(self._accounts):
            rows += [f"1970-01-01 open {name}", f"  code: {quote(self._accounts[name])}"]
        rows += ["", *(f'include "{self.path(day).relative_to(self._directory)}"' for day in sorted(days)), ""]
        try:
            self._replace(self._directory / MAIN, "\n".join(rows).encode())
        except OSError as error:
            message = f"{self._directory / MAIN} cannot be written: {error}"
            raise Unreachable(message) from error
        self._included = set(days)
        self._opened = set(self._accounts)

    def _read_main(self) -> None:
        self._included, self._accounts, self._opened = set(), {}, set()
        path = self._directory / MAIN
        if not path.exists():
            return
        name = ""
        for row in path.read_text(encoding="utf-8").splitlines():
            if match := _OPEN.match(row):
                name = match[1]
                self._accounts[name] = ""
            elif name and row.startswith('  code: "'):
                self._accounts[name] = row[len('  code: "') : -1].replace('\\"', '"').replace("\\\\", "\\")
            elif row.startswith('include "') and (match := _DAY.match(row[9:-1].rpartition("/")[2])):
                self._included.add(date.fromisoformat(match[1]))
        self._opened = set(self._accounts)

    def _remove_temporaries(self) -> None:
        for pattern in (".*.tmp", "[0-9][0-9][0-9][0-9]/.*.tmp"):
            for path in self._directory.glob(pattern):
                path.unlink(missing_ok=True)

    def _replace(self, path: Path, content: bytes) -> None:
        """Write beside, sync, rename, sync the directory: a reader sees the old file or the new one."""
        made = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        if made:
            _sync_directory(path.parent.parent)
        temporary = path.parent / f".{path.name}.tmp"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        faults.reach("books.rename")
        temporary.replace(path)
        faults.reach("books.renamed")
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
