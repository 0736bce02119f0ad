"""The index of a tail file in compiled code: records as they came, and a table of their places.

An id costs about one cache miss to look up or to add, however many there are; numpy's way are sorted runs
(`operators.dedupe_run`), whose number and cost grow with the file. Both hold the same and give the same answers.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.dedupe_answer import Answer
from operators.dedupe_run import U32, U64, Records, sorted_newest

if TYPE_CHECKING:
    from operators.dedupe_probe import Probe

_RECORDS_MIN: Final = 1 << 12
_SLOTS_PER_RECORD: Final = 2


class TailTable:
    """The records of one tail file.

    :param kernels: `operators.probe.kernels`.
    """

    __slots__ = ("_content", "_count", "_hi", "_ids", "_kernels", "_lo", "_minute", "_slots")

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._count = self._ids = 0
        self._hi: U64 = np.empty(_RECORDS_MIN, np.uint64)
        self._lo: U64 = np.empty(_RECORDS_MIN, np.uint64)
        self._content: U64 = np.empty(_RECORDS_MIN, np.uint64)
        self._minute: U32 = np.empty(_RECORDS_MIN, np.uint32)
        self._slots: U32 = np.zeros(_RECORDS_MIN * _SLOTS_PER_RECORD, np.uint32)

    def __len__(self) -> int:
        return self._ids

    def add(self, records: Records) -> None:
        """Put newer records behind the others."""
        begin, end = self._count, self._count + len(records)
        if end > len(self._hi):
            self._grow(end)
        self._hi[begin:end], self._lo[begin:end] = records.hi, records.lo
        self._content[begin:end], self._minute[begin:end] = records.content, records.minute
        self._count = end
        self._ids += self._kernels.insert(self._slots, self._hi, self._lo, begin, end)

    def _grow(self, records: int) -> None:
        """Make room for so many; what is not written to takes no memory."""
        room = 1 << (records - 1).bit_length()
        for name in ("_hi", "_lo", "_content", "_minute"):
            column = getattr(self, name)
            wider = np.empty(room, column.dtype)
            wider[: self._count] = column[: self._count]
            setattr(self, name, wider)
        self._slots = np.zeros(room * _SLOTS_PER_RECORD, np.uint32)
        self._kernels.insert(self._slots, self._hi, self._lo, 0, self._count)

    def find(self, hi: U64, lo: U64, answer: Answer, probe: "Probe", query: Any) -> None:
        """Answer the keys that are here and were not found yet."""
        read = np.empty(len(hi), np.uint32)
        rows, places = np.empty(len(hi), np.int64), np.empty(len(hi), np.int64)
        count = self._kernels.lookup(self._slots, self._hi, self._lo, hi, lo, read, rows, places)
        if count:
            rows, places = rows[:count], places[:count]
            new = ~answer.found[rows]
            answer.take(rows[new], self._content[places[new]], self._minute[places[new]])

    def merged(self) -> Records:
        """Return all records, sorted, each id once."""
        count = self._count
        return sorted_newest(Records(self._hi[:count], self._lo[:count], self._content[:count], self._minute[:count]))
