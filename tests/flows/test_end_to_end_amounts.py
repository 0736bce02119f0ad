"""The whole flow on real servers: what is rated is what the oracle's facts come to under the plans as written."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson

from config.revision import Configuration
from flows import runtime
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.conftest import Deploy
from tests.flows.harness import read_streams
from tests.flows.oracle import Oracle, Result
from tests.operators.contract_oracle import cents, price, q12

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
BALANCE = "2.50"


def _with_a_prepaid_balance(configuration: Configuration) -> dict[str, Any]:
    """Return the default configuration, with a balance for one customer whose usage is worth more."""
    plain: dict[str, Any] = configuration.model_dump(mode="json", by_alias=True)
    (acme,) = [customer for customer in plain["customers"] if customer["id"] == "acme"]
    acme["contracts"][0]["commitments"] = [{"id": "paid", "type": "prepaid", "amount": BALANCE, "period": "P1Y"}]
    return plain


def _to_date(plain: dict[str, Any], expected: Result) -> dict[tuple[str, str], Fraction]:
    """Return what every charge has come to per customer, while the month runs."""
    owners = {subject["id"]: customer for customer in plain["customers"] for subject in customer["subjects"]}
    plans = {plan["id"]: plan["versions"][0]["charges"] for plan in plain["plans"]}
    aggregations = {meter["id"]: meter["aggregation"] for meter in plain["meters"]}
    series: dict[tuple[str, str], dict[Any, list[tuple[int, int, Decimal]]]] = defaultdict(lambda: defaultdict(list))
    charges: dict[tuple[str, str], dict[str, Any]] = {}
    for (tenant, meter, text, usage, booked), (value, _, _) in expected.facts.items():
        customer = owners.get(tenant)
        for raw in plans[customer["contracts"][0]["plan"]] if customer else []:
            overrides = {one["charge"]: one["set"] for one in customer["contracts"][0]["overrides"]} if customer else {}
            charge = raw | overrides.get(raw["id"], {})
            conditions = charge.get("filter", {})
            dimensions = orjson.loads(text)
            passes = all(dimensions.get(name) in _listed(values) for name, values in conditions.items())
            if customer and charge.get("meter") == meter and passes:
                charges[customer["id"], charge["id"]] = charge
                series[customer["id"], charge["id"]][tenant, text].append((usage, booked, value))
    found = {}
    for key, charge in charges.items():
        merge = aggregations[charge["meter"]]
        parts = series[key].values()
        quantity = sum((_merged(merge, members) for members in parts), Fraction(0))
        found[key] = q12(price(charge, quantity / Fraction(charge.get("unit_divisor", "1")), Fraction(1)))
    return found


def _listed(values: Any) -> Any:
    return values if isinstance(values, list) else [values]


def _merged(aggregation: str, members: list[tuple[int, int, Decimal]]) -> Fraction:
    if aggregation == "max":
        return Fraction(max(value for _, _, value in members))
    if aggregation == "latest":
        return Fraction(max(members)[2])
    return sum((Fraction(value) for _, _, value in members), Fraction(0))


def test_amounts_are_what_the_facts_come_to(deployment: Deploy) -> None:
    deployed = deployment(workers=2, epoch_s=0.2, item_events_max=900)
    workload = Workload(seed=8, events=6_000, start=START, end=START + timedelta(hours=7))
    Producer(deployed.settings.redis).send(workload)
    plain = _with_a_prepaid_balance(deployed.configuration)
    configuration = Configuration.model_validate(plain)

    runtime.run(deployed.settings, configuration, drain=True)

    entries = read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
    expected = _to_date(plain, Oracle(configuration).run(entries))
    rows = deployed.query(
        "SELECT customer, charge, sum(amount) FROM @rated_usage_current WHERE status = 'sealed'"
        " AND line_kind != 'recognition' GROUP BY customer, charge"
    )
    rated = {(customer, charge): Fraction(amount) for customer, charge, amount in rows}
    assert len(expected) > 20
    assert {key: value for key, value in rated.items() if value} == {key: one for key, one in expected.items() if one}

    worth = sum((cents(amount, "USD") for (customer, _), amount in expected.items() if customer == "acme"), Decimal(0))
    assert worth > Decimal(BALANCE)
    drawn = deployed.query("SELECT sum(amount) FROM @rated_usage_current WHERE line_kind = 'drawdown'")
    assert drawn == [(Decimal(BALANCE),)]
