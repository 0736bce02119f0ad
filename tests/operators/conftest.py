from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.operators.dedupe_cases import SCRATCH


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """Return a temporary directory in memory, for tests that rewrite and sync thousands of small files."""
    with TemporaryDirectory(dir=SCRATCH) as name:
        yield Path(name)
