"""The journal's files and the index of keys over them. All calls happen under the directory's lock."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from core import faults
from core.errors import InvariantViolation, Unreachable
from sinks.erp.journal_format import ReadEntry, number_text, quote, read_entries
from sinks.erp.journal_index import KeyIndex, Place
from sinks.erp.port import ErpEntry

_DAY = re.compile(r"^(\d{4}-\d{2}-\d{2})\.beancount$")
_OPEN = re.compile(r"^1970-01-01 open (\S+)$")
_HEAD: Final = ";; Written by Meterbridge. Entries are only ever added; do not edit.\n\n"
MAIN: Final = "main.beancount"


class Books:
    """Day files, the main file, and the index rebuilt from them when they changed under us."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._signatures: dict[date, tuple[int, int, int]] = {}
        self._index = KeyIndex()
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
        return self._index.find(key)

    def read(self, day: date) -> Iterator[ErpEntry]:
        """Read one day's entries."""
        for entry in self._entries(day):
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
        for day in sorted(found):
            self._index.add(day, ((entry.key, entry.number, entry.digest) for entry in self._entries(day)))
        self.number_last = self._index.number_last()
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

    def _entries(self, day: date) -> Iterator[ReadEntry]:
        """Read one day's entries, a few at a time: a file that is replaced meanwhile is read as it was."""
        with self.path(day).open(encoding="utf-8") as file:
            yield from read_entries(file)

    def append(self, day: date, text: str, entries: Sequence[tuple[str, int, str]]) -> None:
        """Extend a day's file: a new file with the old and the new text takes its place in one step."""
        path = self.path(day)
        known = path if day in self._signatures else None
        gap = b"" if known is None or self._ends_well(known) else b"\n\n"  # a hand edit took the empty line away
        self._replace(path, (_HEAD.encode() if known is None else gap) + text.encode(), known)
        self._signatures[day] = self._signature(path)
        self._index.add(day, entries)
        self.number_last = max(self.number_last, *(number for _, number, _ in entries))

    @staticmethod
    def _ends_well(path: Path) -> bool:
        """Tell whether a file ends with an empty line: entries need one between them."""
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2))
            return file.read() == b"\n\n"

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

    def _replace(self, path: Path, content: bytes, before: Path | None = None) -> None:
        """Write beside, sync, rename, sync the directory: a reader sees the old file or the new one.

        :param before: a file whose content comes first; the kernel copies it, it never is in our memory.
        """
        made = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        if made:
            _sync_directory(path.parent.parent)
        temporary = path.parent / f".{path.name}.tmp"
        if before is not None:
            shutil.copyfile(before, temporary)
        with temporary.open("wb" if before is None else "ab") as file:
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
