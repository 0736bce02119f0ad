"""Fault points: places in the real process where a test may end it, as a power cut would.

Each stands at an I/O. All are inert unless the setting `fault_point` names one, which a production configuration
refuses (`environment: production`); then the process ends itself by SIGKILL when it gets there, at the n-th time.
Nothing is flushed and no handler runs.
"""

import os
import signal
from typing import Final

from core.errors import InvalidRequest

POINTS: Final = (
    "revision.recorded",
    "source.read",
    "source.snapshot",
    "log.append",
    "log.sync",
    "log.synced",
    "segment.rename",
    "segment.renamed",
    "step.snapshot",
    "table.insert",
    "table.inserted",
    "table.snapshot",
    "table.flushed",
    "outbox.stage",
    "outbox.staged",
    "outbox.promoted",
    "poster.submit",
    "poster.answered",
    "poster.applied",
    "books.rename",
    "books.renamed",
)
"""Names in the order in which an event meets them. A past participle stands behind the I/O, the others before it."""

_armed: list[object] = []
"""Empty, or the name of the armed point and how often it is still passed."""


def arm(setting: str, environment: str) -> None:
    """Arm the point that a setting such as `log.sync:3` names: the process dies the third time it is reached.

    :raises InvalidRequest: there is no such point, the number is not one, or the environment is production.
    """
    _armed.clear()
    if not setting:
        return
    if environment == "production":
        message = f"METERBRIDGE_FAULT_POINT={setting} would kill a production process: remove it"
        raise InvalidRequest(message)
    name, _, times = setting.partition(":")
    if name not in POINTS or not (times or "1").isdecimal() or int(times or "1") < 1:
        message = f"METERBRIDGE_FAULT_POINT={setting} is not one of {', '.join(POINTS)}, optionally with `:<n>` behind"
        raise InvalidRequest(message)
    _armed[:] = [name, int(times or "1")]


def reach(name: str) -> None:
    """Pass a fault point; returns at once unless this one is armed and due."""
    if not _armed or _armed[0] != name:
        return
    left = _armed[1]
    assert isinstance(left, int)  # noqa: S101 - for the type checker
    if left > 1:
        _armed[1] = left - 1
        return
    os.kill(os.getpid(), signal.SIGKILL)
