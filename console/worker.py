"""One of several worker processes of the service: what its supervisor tells it on the command line."""

import os
from dataclasses import dataclass

from prometheus_client import values


@dataclass(frozen=True, slots=True)
class Place:
    """The worker's number, and the descriptors of the shared rate limits and of the pipe to the supervisor."""

    number: int
    buckets: int
    pipe: int

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Return the place that `str` wrote."""
        number, buckets, pipe = map(int, text.split(","))
        return cls(number, buckets, pipe)

    def __str__(self) -> str:
        return f"{self.number},{self.buckets},{self.pipe}"

    def tell_ready(self) -> None:
        """Tell the supervisor that this worker listens."""
        os.write(self.pipe, b".")


def count_as(number: int) -> None:
    """Count metrics under this number, so that the next worker of it goes on; before any metric is made."""
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
