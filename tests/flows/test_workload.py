"""What the load generator promises is what the real flow finds, to the event and the token."""

from datetime import UTC, datetime, timedelta

from flows import runtime
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.conftest import Deploy

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
METERS = ("requests", "input_tokens", "output_tokens")


def test_expected_counts_and_totals_are_found_by_the_flow(deployment: Deploy) -> None:
    workload = Workload(
        seed=9,
        events=8_000,
        start=START,
        end=START + timedelta(hours=9),
        duplicate_share=0.05,
        conflict_share=0.02,
        void_share=0.03,
        malformed_share=0.03,
    )
    deployed = deployment()
    Producer(deployed.settings.redis).send(workload, batch=3)

    runtime.run(deployed.settings, deployed.configuration, drain=True)

    outcomes = deployed.outcomes()
    expected = workload.expected
    by_outcome = {
        name: sum(events for (outcome, _), events in outcomes.items() if outcome == name)
        for name in ("accepted", "duplicate", "conflicting_duplicate", "rejected")
    }
    assert by_outcome == {
        "accepted": expected["accepted"],
        "duplicate": expected["duplicates"],
        "conflicting_duplicate": expected["conflicts"],
        "rejected": expected["rejected"],
    }
    rejected = {reason: events for (outcome, reason), events in outcomes.items() if outcome == "rejected"}
    assert rejected == expected["rejected_by_reason"]
    assert len(rejected) == 8
    rows = deployed.query("SELECT meter, sum(value) FROM @usage_facts_current GROUP BY meter")
    totals = {meter: int(value) for meter, value in rows if meter in METERS}
    assert totals == {meter: expected[meter] for meter in METERS}
