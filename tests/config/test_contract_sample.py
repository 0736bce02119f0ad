"""What the configuration contract shows passes the check as it is written there."""

import os
from decimal import Decimal
from pathlib import Path

import pytest

from config.loader import examine
from config.revision import Revision
from operators.rate_prices import Pricings
from operators.rating.charges import amount

SAMPLE = """\
meters:
  - id: input_tokens
    event_type: llm.completion
    aggregation: sum            # count | sum | max | min | latest | unique_count | weighted_sum
    value: $.input_tokens       # path into data; not for count
    group_by: {model: $.model}
    filter: {region: [eu, us]}  # optional: only these values
plans:
  - id: payg
    versions:
      - effective_from: 2023-01-01T00:00:00Z      # by usage time; versions are only ever added
        currency: USD
        charges:
          - {id: input, meter: input_tokens, filter: {model: gpt-4}, model: graduated,
             tiers: [{up_to: "1000", unit_amount: "0.03", flat_amount: null}, {up_to: null, unit_amount: "0.02"}],
             unit: token, unit_divisor: "1",
             accounting: {revenue_role: usage_revenue, recognition: as_billable, tax_category: saas}}
entities:
  - {id: US01, functional_currency: USD, timezone: America/New_York, close: {cutoff: P5D},
     posting: {frequency: hourly, grain: entity},
     accounts: {unbilled_receivable: "1150", usage_revenue: "4001", subscription_revenue: "4002",
                shortfall_revenue: "4003", contract_liability: "2400", accounts_receivable: "1200",
                tax_payable: "2200"},
     erp: {adapter: journal, company: US01}}
customers:
  - id: acme
    subjects: [acme, {id: acme-eu, from: 2026-01-01T00:00:00Z}]     # a subject belongs to one customer at a time
    erp: {customer: CUST-0001}
    contracts:
      - id: acme-2026
        plan: payg
        plan_version: 1            # or latest; default: the version in force at the contract's start
        entity: US01
        from: 2023-01-01T00:00:00Z
        billing_period: {unit: month, count: 1, anchor: 2023-01-01, timezone: UTC}   # day 31 clamps to month end
        overrides: [{charge: input, set: {discount_percent: "10"}}]                  # merged by top-level field
        commitments: [{id: annual, type: postpaid, amount: "12000", period: P1Y, applies_to: [input],
                       recognition: ratable}]
"""


def test_the_sample_of_the_contract_passes_and_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("METERBRIDGE_"):
            monkeypatch.delenv(name)
    path = tmp_path / "meterbridge.yaml"
    path.write_text(SAMPLE)
    found = examine(path)
    assert found.problems == ()
    assert ["books_open_at" in warning for warning in found.warnings] == [True]
    assert found.configuration is not None
    (contract,) = found.configuration.customers[0].contracts
    (price,) = Pricings(Revision(found.configuration)).of(contract, 1, contract.from_).prices
    # 1000 x 0.03 + 500 x 0.02 = 40, less 10 %
    assert amount(price.charge, Decimal(1500)) == 36
