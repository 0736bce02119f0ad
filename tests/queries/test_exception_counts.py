"""The cheap counts say what the full list of exceptions says."""

from datetime import UTC, datetime

from queries.exception_counts import open_by_kind
from queries.exceptions import groups
from tests.queries.conftest import Finished


def test_the_counts_agree_with_the_list(finished: Finished) -> None:
    listed: dict[str, tuple[int, datetime]] = {}
    for group in groups(finished.stores):
        count, first = listed.get(group.kind, (0, group.first))
        listed[group.kind] = (count + group.count, min(first, group.first))

    counted = open_by_kind(finished.deployment.settings, datetime.now(UTC))

    assert {kind: (one.count, one.first) for kind, one in counted.items()} == listed
    assert {"unrated", "conflicting_duplicate"} <= listed.keys()
