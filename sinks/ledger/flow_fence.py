"""Which metering flow writes to this ledger: a number that grows with each start and is checked in every transaction.

The lock on the state directory keeps two flows off one directory. It does not see a copy of it on another host, where a
flow would take documents back that this one has staged and calls durable. So the newest start counts: a flow that was
cut off, or stopped for a while, finds a higher number at its next transaction and ends before it changes anything.
"""

import os
import socket
from typing import Final

import orjson
from sqlalchemy import Connection, insert, select, update

from core.errors import LockHeld
from sinks.ledger import tables

_TABLE = tables.progress
_NAME: Final = "flow_fence"


def take(connection: Connection) -> int:
    """Become the flow of this ledger, and return the number that proves it."""
    holder = orjson.dumps({"host": socket.gethostname(), "process": os.getpid()}).decode()
    own = _TABLE.c.name == _NAME
    changed = connection.execute(update(_TABLE).where(own).values(sequence=_TABLE.c.sequence + 1, positions=holder))
    if not changed.rowcount:
        connection.execute(insert(_TABLE).values(name=_NAME, watermark_ms=0, sequence=1, positions=holder))
    return int(connection.execute(select(_TABLE.c.sequence).where(own)).scalar_one())


def check(connection: Connection, fence: int) -> None:
    """Make sure that no flow was started behind ours, and keep it so until this transaction ends.

    :raises LockHeld: one was; names its process.
    """
    query = select(_TABLE.c.sequence, _TABLE.c.positions).where(_TABLE.c.name == _NAME).with_for_update()
    row = connection.execute(query).first()
    if row is not None and row.sequence == fence:
        return
    holder = orjson.loads(row.positions) if row is not None else {"host": "?", "process": "?"}
    message = (
        f"another metering flow (process {holder['process']} on {holder['host']}) was started on this ledger, with"
        " another state directory, such as a copy of ours: this one ends and changes nothing more. One ledger belongs"
        " to one flow: find out which of the two state directories is to go on, stop the other's flow, and start that"
        " one"
    )
    raise LockHeld(message)
