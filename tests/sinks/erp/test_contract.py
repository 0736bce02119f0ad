"""The 18 cases every adapter has to pass, on real ERPs: files, servers over HTTP, Tryton on PostgreSQL.

Where the class of an ERP excludes an outcome, the case says which other outcome is right there; nothing is skipped.
Tryton's whole suite is slow; a few of its cases run always.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sinks.erp.contract import cases_booking, cases_faults, cases_reading
from tests.sinks.erp.contract.cases_faults import Shown
from tests.sinks.erp.contract.harness import ErpUnderTest

Case = Callable[..., None]
CASES: dict[str, Case] = {
    name: case
    for module in (cases_booking, cases_faults, cases_reading)
    for name, case in inspect.getmembers(module, inspect.isfunction)
    if name.startswith("case_") and case.__module__ == module.__name__
}
WHOLE = ("journal", "rest-netsuite", "rest-plain")
"""All of their cases run always: a library, an upsert, and an ERP that refuses nothing."""
SHORT = ("rest-xero", "rest-quickbooks", "rest-jobs", "tryton", "tryton-vanilla")
SHORT_CASES = ("case_01", "case_03", "case_04", "case_05", "case_09")
"""The cases of the others that run always; the rest is slow."""
SET_UP_S_MAX = 900
"""The first test that needs Tryton installs and sets it up; that takes a minute, and more on a busy machine."""


def runs() -> Iterator[Any]:
    """Return every pair of ERP and case, ERP by ERP."""
    for name in (*WHOLE, *SHORT):
        for case in sorted(CASES):
            slow = name in SHORT and not case.startswith(SHORT_CASES)
            marks = [pytest.mark.slow] if slow else []
            if name.startswith("tryton"):
                marks.append(pytest.mark.timeout(SET_UP_S_MAX))
            yield pytest.param(name, case, id=f"{name}-{case}", marks=marks)


def test_there_are_eighteen_cases() -> None:
    assert {name[5:7] for name in CASES} == {f"{number:02d}" for number in range(1, 19)}


@pytest.mark.parametrize(("name", "case"), list(runs()))
def test_case(
    name: str,
    case: str,
    erps: Callable[[str], ErpUnderTest],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    erp = erps(name)
    erp.heal()
    run = CASES[case]  # what must hold is asserted in the case
    more: list[Any] = [Shown(capfd, caplog)] if "shown" in inspect.signature(run).parameters else []
    try:
        run(erp, tmp_path, *more)
    finally:
        erp.heal()
