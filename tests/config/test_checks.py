"""Cross checks: each fault alone gives one finding at its place; a sound configuration gives none."""

import copy
from typing import Any

import pytest

from config.checks import check
from config.revision import Configuration

SOUND: dict[str, Any] = {
    "rules": {"books_open_at": "2023-01-01T00:00:00Z"},
    "meters": [
        {"id": "m", "event_type": "t", "aggregation": "sum", "value": "$.x", "group_by": {"model": "$.model"}},
        {"id": "n", "event_type": "t", "aggregation": "count"},
    ],
    "plans": [
        {
            "id": "p",
            "versions": [
                {
                    "effective_from": "2023-01-01T00:00:00Z",
                    "currency": "USD",
                    "charges": [
                        {"id": "c", "meter": "m", "filter": {"model": "a"}, "model": "per_unit", "unit_amount": "1"},
                        {"id": "d", "meter": "m", "filter": {"model": ["b"]}, "model": "per_unit", "unit_amount": "2"},
                    ],
                },
                {"effective_from": "2024-01-01T00:00:00Z", "currency": "USD", "charges": []},
            ],
        },
        {
            "id": "q",
            "versions": [
                {
                    "effective_from": "2023-01-01T00:00:00Z",
                    "currency": "USD",
                    "charges": [
                        {"id": "e", "meter": "n", "model": "graduated", "tiers": [{"up_to": None, "unit_amount": "1"}]}
                    ],
                }
            ],
        },
    ],
    "entities": [
        {
            "id": "E",
            "functional_currency": "USD",
            "accounts": {
                "unbilled_receivable": "1150",
                "usage_revenue": "4001",
                "subscription_revenue": "4002",
            },
            "erp": {"company": "E"},
        }
    ],
    "customers": [
        {
            "id": "x",
            "subjects": ["s", {"id": "t", "to": "2024-01-01T00:00:00Z"}],
            "erp": {"customer": "1"},
            "contracts": [
                {"id": "k", "plan": "p", "entity": "E", "from": "2023-01-01T00:00:00Z", "to": "2024-01-01T00:00:00Z"},
                {"id": "l", "plan": "q", "entity": "E", "from": "2023-01-01T00:00:00Z"},
            ],
        },
        {
            "id": "y",
            "subjects": [{"id": "t", "from": "2024-01-01T00:00:00Z"}],
            "erp": {"customer": "2"},
            "contracts": [{"id": "k", "plan": "p", "plan_version": 1, "entity": "E", "from": "2020-01-01T00:00:00Z"}],
        },
    ],
}

START = "2023-01-01T00:00:00Z"


def _findings(changed: dict[str, Any]) -> list[tuple[str, str, bool]]:
    found = check(Configuration.model_validate(changed))
    return [(".".join(map(str, finding.location)), finding.message, finding.is_warning) for finding in found]


def _set(path: str, value: Any) -> dict[str, Any]:
    """Return the sound configuration with one place changed; `+` appends to a list."""
    changed = copy.deepcopy(SOUND)
    target: Any = changed
    *parts, last = path.split(".")
    for part in parts:
        target = target[int(part)] if isinstance(target, list) else target[part]
    if last == "+":
        target.append(value)
    elif isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    return changed


def test_a_sound_configuration_has_no_findings() -> None:
    assert _findings(SOUND) == []


CHARGE = "plans.0.versions.0.charges"
CONTRACT = "customers.0.contracts.1"

LATER = {"id": "z", "plan": "q", "entity": "E", "from": "2030-01-01T00:00:00Z"}
TOO_LONG = {"id": "t", "to": "2024-01-02T00:00:00Z"}
WITH_MINIMUM = [{"charge": "e", "set": {"minimum": "5"}}]
WITH_FEE = [{"charge": "e", "set": {"zero_usage": "first_tier_flat"}}]
WITH_METER = [{"charge": "e", "set": {"meter": "zz"}}]
WITH_FILTER = [{"charge": "e", "set": {"filter": {"model": "a"}}}]
PERCENTAGE = {"id": "c", "meter": "m", "filter": {"model": "a"}, "model": "percentage", "rate_percent": "1"}
FIXED = PERCENTAGE | {"fixed_amount": "0.3"}
WITHOUT_TIERS: list[dict[str, Any]] = [{"charge": "e", "set": {"tiers": []}}]
SECOND_START = "plans.0.versions.1.effective_from"
TIERS = "plans.1.versions.0.charges.0.tiers"
UNBILLED = "entities.0.accounts.unbilled_receivable"

MATRIX: dict[str, Any] = {
    "id": "c",
    "meter": "m",
    "filter": {"model": "a"},
    "model": "matrix",
    "rows": [{"when": {"model": "a"}, "unit_amount": "1"}],
}
PREPAID = {"id": "g", "type": "prepaid", "amount": "10", "period": "P1Y"}


def _row(**fields: Any) -> dict[str, Any]:
    return MATRIX | {"rows": [MATRIX["rows"][0] | fields]}


FAULTS: list[tuple[str, Any, str, str]] = [
    (
        f"{CHARGE}.0",
        _row(when={"model": "a", "region": "eu"}),
        f"{CHARGE}.0.rows.0.when.region",
        "no dimension 'region'",
    ),
    (f"{CHARGE}.0", _row(unit_amount="x"), f"{CHARGE}.0.rows.0.unit_amount", "valid decimal"),
    (
        f"{CHARGE}.0",
        _row(model="percentage", rate_percent="1", unit_amount=None, free_events=2) | {"id": "c"},
        f"{CHARGE}.0.rows.0.unit_amount",
        "not a known field",
    ),
    (f"{CONTRACT}.commitments", [PREPAID], f"{CONTRACT}.entity", "contract_liability"),
    ("meters.+", SOUND["meters"][0], "meters.2.id", "used twice"),
    ("entities.+", SOUND["entities"][0], "entities.1.id", "used twice"),
    (f"{CHARGE}.1.id", "c", f"{CHARGE}.1.id", "used twice"),
    (f"{CHARGE}.1.meter", "zz", f"{CHARGE}.1.meter", "unknown meter 'zz'"),
    (f"{CHARGE}.0.filter", {"model": "a", "region": "eu"}, f"{CHARGE}.0.filter.region", "no dimension 'region'"),
    (f"{CHARGE}.0.unit_amount", "x", f"{CHARGE}.0.unit_amount", "valid decimal"),
    (f"{CHARGE}.0.model", "free", f"{CHARGE}.0", "does not match"),
    (
        SECOND_START,
        START,
        SECOND_START,
        "after that of the version before",
    ),
    *[
        (TIERS, tiers, TIERS.removesuffix(".tiers"), message)
        for tiers, message in (
            ([{"up_to": "5"}, {"up_to": "5"}, {}], "tier 2 ends at 5, not above 5"),
            ([{"up_to": "9"}, {"up_to": "5"}, {}], "tier 2 ends at 5, not above 9"),
            ([{}, {"up_to": "5"}], "tier 1 has no up_to, but only the last tier may be open"),
            ([{"up_to": "5"}], "usage above 5 has no price"),
        )
    ],
    ("plans.0.versions.0.currency", "ABC", "plans.0.versions.0.currency", "unknown currency 'ABC'"),
    ("entities.0.functional_currency", "XXX", "entities.0.functional_currency", "unknown currency 'XXX'"),
    (
        UNBILLED,
        "4001",
        UNBILLED,
        "credit revenue twice",
    ),
    (f"{CONTRACT}.plan", "zz", f"{CONTRACT}.plan", "unknown plan 'zz'"),
    (f"{CONTRACT}.entity", "zz", f"{CONTRACT}.entity", "unknown entity 'zz'"),
    (f"{CONTRACT}.plan_version", 2, f"{CONTRACT}.plan_version", "no version 2"),
    (f"{CONTRACT}.plan_version", 0, f"{CONTRACT}.plan_version", "no version 0"),
    (f"{CONTRACT}.from", "2022-01-01T00:00:00Z", f"{CONTRACT}.from", "no version of the plan q is in force"),
    (f"{CONTRACT}.to", START, f"{CONTRACT}.to", "must be after `from`"),
    (f"{CONTRACT}.id", "k", f"{CONTRACT}.id", "used twice"),
    (f"{CONTRACT}.overrides", [{"charge": "zz", "set": {}}], f"{CONTRACT}.overrides.0.charge", "no charge 'zz'"),
    (
        f"{CONTRACT}.overrides",
        WITHOUT_TIERS,
        f"{CONTRACT}.overrides.0.set.tiers",
        "at least 1",
    ),
    (f"{CONTRACT}.overrides", WITH_METER, f"{CONTRACT}.overrides.0.set.meter", "unknown meter 'zz'"),
    (f"{CONTRACT}.overrides", WITH_FILTER, f"{CONTRACT}.overrides.0.set.filter.model", "has no dimension 'model'"),
    (f"{CHARGE}.0", PERCENTAGE | {"free_events": 1}, f"{CHARGE}.0.free_events", "depends on their order"),
    (f"{CHARGE}.0", FIXED | {"free_amount": "5"}, f"{CHARGE}.0.free_amount", "depends on their order"),
    (f"{CHARGE}.0", PERCENTAGE | {"per_event_minimum": "0"}, f"{CHARGE}.0.per_event_minimum", "value of each event"),
    (f"{CHARGE}.0", PERCENTAGE | {"per_event_maximum": "2"}, f"{CHARGE}.0.per_event_maximum", "value of each event"),
    (
        f"{CONTRACT}.overrides",
        WITH_MINIMUM,
        f"{CONTRACT}.entity",
        "no account for shortfall_revenue",
    ),
    (f"{CONTRACT}.overrides", WITH_FEE, f"{CONTRACT}.entity", "no account for shortfall_revenue"),
    (f"{CONTRACT}.unbilled_kind", "contract_asset", f"{CONTRACT}.entity", "no account for contract_asset"),
    (f"{CONTRACT}.billing_period", {"unit": "year"}, f"{CONTRACT}.billing_period", "more than a month"),
    (f"{CONTRACT}.billing_period", {"unit": "month", "count": 3}, f"{CONTRACT}.billing_period", "more than a month"),
    (
        f"{CONTRACT}.commitments",
        [{"id": "a", "type": "prepaid", "amount": "1", "period": "P1Y"}],
        f"{CONTRACT}.entity",
        "no account for contract_liability",
    ),
    (
        "customers.0.contracts.+",
        LATER,
        "customers.0.contracts.2",
        "overlaps with contract l",
    ),
    ("customers.1.subjects.+", "s", "customers.1.subjects.1", "belongs to customers x and y"),
    (
        "customers.0.subjects.1",
        TOO_LONG,
        "customers.1.subjects.0",
        "belongs to customers x and y",
    ),
    ("customers.0.subjects.+", "s", "customers.0.subjects.2", "customer x twice"),
]


@pytest.mark.parametrize(("path", "value", "location", "message"), FAULTS, ids=[f"{f[2]}-{f[3][:20]}" for f in FAULTS])
def test_each_fault_is_one_error_at_its_place(path: str, value: Any, location: str, message: str) -> None:
    findings = _findings(_set(path, value))
    assert [(where, is_warning) for where, _, is_warning in findings] == [(location, False)], findings
    assert message in findings[0][1]


@pytest.mark.parametrize(
    ("path", "value", "location", "message"),
    [
        ("rules.dedupe_horizon_days", 34, "rules.dedupe_horizon_days", "less than too_old_days, 35"),
        ("customers.1.erp", {}, "customers.1", "no erp.customer"),
        ("customers.1.subjects", [], "customers.1.subjects", "no subject"),
        (f"{CHARGE}.1.filter", {"model": ["a", "b"]}, f"{CHARGE}.1", "'c' and 'd' both price"),
        (f"{CHARGE}.1.filter", {}, f"{CHARGE}.1", "'c' and 'd' both price"),
    ],
)
def test_doubts_are_warnings(path: str, value: Any, location: str, message: str) -> None:
    ((where, text, is_warning),) = _findings(_set(path, value))
    assert (where, is_warning) == (location, True)
    assert message in text


@pytest.mark.parametrize(
    ("conditions", "unused"),
    [
        ([{"model": "a"}, {"model": "a", "region": "eu"}], [1]),
        ([{"model": "a", "region": "eu"}, {"model": "a"}], []),
        ([{"model": "a"}, {"model": "b"}, {"model": ["b", "a"], "region": "eu"}, {"region": "eu"}], [2]),
        ([{"model": ["a", "b"], "region": "eu"}, {"model": ["b", "c"], "region": "eu"}], []),
        ([{"model": "a"}, {"region": "eu"}, {"model": "b", "region": ["eu", "us"]}, {}], []),
    ],
)
def test_rows_of_a_matrix_that_are_never_used(conditions: list[dict[str, Any]], unused: list[int]) -> None:
    rows = [{"when": when, "row": str(place), "unit_amount": "1"} for place, when in enumerate(conditions)]
    changed = _set(f"{CHARGE}.0", {"id": "c", "meter": "m", "model": "matrix", "rows": rows, "filter": {"model": "a"}})
    changed["meters"][0]["group_by"]["region"] = "$.region"
    expected = [f"{CHARGE}.0.rows.{place}" for place in unused]
    found = [(where, is_warning) for where, message, is_warning in _findings(changed) if "never used" in message]
    assert found == [(where, True) for where in expected]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # An open assignment ends where the next begins.
        ("customers.0.subjects.1", "t"),
        # Contracts that follow each other, or whose filters exclude each other.
        ("customers.0.contracts.0.to", "2023-06-01T00:00:00Z"),
        (f"{CONTRACT}.billing_period", {"unit": "week", "count": 4}),
        (f"{CONTRACT}.plan_version", "latest"),
        ("plans.0.versions.0.currency", "JPY"),
        # Priced by sum and number of events; free parts of nothing are none.
        (f"{CHARGE}.0", FIXED | {"free_events": 0, "free_amount": "0"}),
        (f"{CHARGE}.0", PERCENTAGE | {"free_amount": "5"}),
        (f"{CHARGE}.0", FIXED | {"rate_percent": "0", "free_events": 3, "per_event_maximum": "1"}),
        ("rules", {}),
    ],
)
def test_what_is_allowed(path: str, value: Any) -> None:
    assert _findings(_set(path, value)) == []


def test_several_faults_are_found_together() -> None:
    changed = _set(f"{CONTRACT}.plan", "zz")
    changed["meters"].append(changed["meters"][0])
    changed["entities"][0]["functional_currency"] = "ABC"
    assert len([where for where, _, is_warning in _findings(changed) if not is_warning]) == 3


FEES: list[tuple[str, Any, str]] = [
    (f"{CHARGE}.0", _row(minimum="1"), "minimum or the fee of zero usage of charge 'c' of plan p"),
    (f"{CHARGE}.0.accounting", {"recognition": "ratable"}, "the ratable revenue of charge 'c' of plan p"),
    (f"{CONTRACT}.commitments", [PREPAID], "commitment g of contract l"),
    (f"{CHARGE}.+", {"id": "f", "model": "flat", "amount": "9"}, "flat fee of charge 'f' of plan p"),
    (f"{CHARGE}.0.minimum", "1", "minimum or the fee of zero usage of charge 'c' of plan p"),
    (f"{CHARGE}.0.zero_usage", "first_tier_flat", "fee of zero usage of charge 'c' of plan p"),
    (f"{CONTRACT}.overrides", WITH_MINIMUM, "fee of zero usage of charge 'e' of contract l"),
]


def test_rows_of_a_matrix_and_amounts_of_commitments_are_checked() -> None:
    changed = _set(f"{CHARGE}.0", _row(minimum="1"))
    changed["customers"][0]["contracts"][1]["commitments"] = [PREPAID | {"amount": "1.005"}]
    found = {(where, message) for where, message, _ in _findings(changed)}
    assert any(where.endswith("contracts.0.entity") and "minimum of charge c" in text for where, text in found)
    assert any(where == f"{CONTRACT}.commitments.0.amount" and "paid in USD" in text for where, text in found)


@pytest.mark.parametrize(("path", "value", "named"), FEES, ids=[fee[2] for fee in FEES])
def test_fees_at_a_periods_end_want_a_first_period(path: str, value: Any, named: str) -> None:
    changed = _set(path, value)
    changed["entities"][0]["accounts"] |= {"shortfall_revenue": "4003", "contract_liability": "2400"}
    assert [found for found in _findings(changed) if not found[2]] == []
    known = _findings(changed)
    del changed["rules"]
    ((where, message, is_warning),) = [found for found in _findings(changed) if found not in known]
    assert is_warning
    assert where == "rules.books_open_at"
    assert named in message
