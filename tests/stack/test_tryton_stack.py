"""A Tryton from nothing needs the sources; that it runs is proven by the ERP demo's own test."""

from pathlib import Path

import pytest

from core.errors import InvalidRequest
from stack.tryton_stack import running_tryton


def test_an_installation_without_the_sources_is_told_so(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequest, match=r"there is no requirements-tryton\.lock in"),
        running_tryton(tmp_path, tmp_path / "tryton", {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
