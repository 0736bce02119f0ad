"""Pinned key strings for the keyed hops.

The engine routes a key to worker `SipHash-1-3(key bytes + 0xFF) % workers`. With few coarse keys, chance puts
7 of 8 on one worker, so these strings were searched: key number i goes to worker i on 8 workers, hence they
spread evenly over 2, 4 and 8. A test runs them through the engine. They are part of the recovery state's
schema: changing one orphans its state.
"""

from typing import Final

_ID: Final = (0, 18, 8, 8, 2, 4, 0, 2, 0, 8, 4, 3, 18, 0, 9, 24)
_TENANT: Final = (24, 17, 3, 15, 5, 0, 4, 12, 0, 1, 9, 0, 2, 1, 1, 13)
_CUSTOMER: Final = (1, 0, 5, 2, 3, 3, 4, 13, 4, 0, 3, 3, 0, 6, 3, 2)

ID_KEYS: Final = tuple(f"id-{i:02d}-{salt}" for i, salt in enumerate(_ID))
TENANT_KEYS: Final = tuple(f"tenant-{i:02d}-{salt}" for i, salt in enumerate(_TENANT))
CUSTOMER_KEYS: Final = tuple(f"customer-{i:02d}-{salt}" for i, salt in enumerate(_CUSTOMER))

SHARDS_MAX: Final = len(ID_KEYS)
