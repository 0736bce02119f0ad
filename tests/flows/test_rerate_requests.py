"""Which correction a request for other prices comes to: versions, currencies, and what stays as it is."""

from datetime import UTC, datetime

import pytest

from core.errors import ConfigError, InvalidRequest
from flows.rerate import Request, correction_of
from tests.operators.rate_support import PER_TOKEN, revision, version

JANUARY = datetime(2024, 1, 1, tzinfo=UTC)
DEARER = PER_TOKEN | {"unit_amount": "1"}


def test_prices_of_a_version_take_the_place_of_the_others_of_its_currency() -> None:
    latest = revision(
        [
            version(PER_TOKEN),
            version(PER_TOKEN, currency="EUR", effective="2023-06-01T00:00:00Z"),
            version(DEARER, effective="2025-01-01T00:00:00Z"),
        ]
    ).configuration
    made, is_new = correction_of(latest, (), Request("p", JANUARY, plan_version=3, actor="ann", reason="x"))
    assert is_new
    assert [(one.version, one.charges) for one in made.versions] == [(1, (DEARER,))]
    assert (made.plan, made.from_, made.approved_by, made.reason_code) == ("p", JANUARY, "ann", "price_error")
    again, is_new = correction_of(latest, (made,), Request("p", JANUARY, plan_version=3, actor="bob"))
    assert (again, is_new) == (made, False)
    # From a later date on they are the same prices already.
    with pytest.raises(InvalidRequest, match="charged from 2024-03-01 on already"):
        correction_of(latest, (made,), Request("p", datetime(2024, 3, 1, tzinfo=UTC), plan_version=3))
    with pytest.raises(InvalidRequest, match="1 to 3"):
        correction_of(latest, (), Request("p", JANUARY, plan_version=4))
    with pytest.raises(InvalidRequest, match="charged from 2024-01-01 on already"):
        correction_of(latest, (), Request("p", JANUARY, plan_version=2))


def test_a_version_with_other_charges_cannot_be_charged_instead() -> None:
    other = {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "1"}
    latest = revision([version(PER_TOKEN), version(PER_TOKEN, other, effective="2025-01-01T00:00:00Z")]).configuration
    with pytest.raises(ConfigError, match="matrix rows must be the recorded ones"):
        correction_of(latest, (), Request("p", JANUARY, plan_version=2))
