"""What a look-up in the id log says of each key, filled by newer records first."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a key was found, and payload and arrival minute of its newest record, meaningful only then."""

    found: npt.NDArray[np.bool_]
    content: U64
    minute: U32

    @staticmethod
    def blank(keys: int) -> "Answer":
        """Return that of nothing found."""
        return Answer(np.zeros(keys, np.bool_), np.zeros(keys, np.uint64), np.zeros(keys, np.uint32))

    def open(self, keys: Places) -> Places:
        """Return those of the keys that are not found yet."""
        return keys[~self.found[keys]]

    def take(self, keys: Places, content: U64, minute: U32) -> None:
        """Note keys as found."""
        self.found[keys] = True
        self.content[keys], self.minute[keys] = content, minute
