"""Where numba keeps what it compiles, so that the next start only loads it."""

import sys
from pathlib import Path

from xxhash import xxh3_64_hexdigest


def keep_in(directory: Path, package: Path, module: str) -> None:
    """Let numba keep what it compiles next there, apart for every version of a package's sources.

    It looks at one source file only. Does nothing once `module`, which has compiled functions, was imported: where they
    are kept is settled then.

    :raises ImportError: numba is not installed. :raises OSError: the directory cannot be made.
    """
    if module in sys.modules:
        return
    from numba import config  # noqa: PLC0415

    sources = b"".join(path.read_bytes() for path in sorted(package.glob("*.py")))
    kept = directory / xxh3_64_hexdigest(sources)
    kept.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(kept)
