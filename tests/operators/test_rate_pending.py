"""Usage that waits for a price has a limit, and whose usage finds no room is told by name."""

import pytest

from config.revision import History
from operators import rate_pending
from tests.operators.rate_support import HOUR0, PER_TOKEN, Driver, Use, customer, facts, revision, version


@pytest.mark.parametrize("shards", [1, 3])
def test_usage_beyond_the_limit_is_reported_by_subject_and_the_rest_is_priced(
    shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given room for two rows and three subjects nobody knows; then two are priced later and the third was named."""
    monkeypatch.setattr(rate_pending, "PENDING_ROWS_MAX", 2)
    known_from = HOUR0 + 5
    before = revision([version(PER_TOKEN)], [customer("other")])
    after = revision([version(PER_TOKEN)], [customer("abc", subjects=["a", "b", "c"])], known_from * 3_600_000)
    driver = Driver(History([before, after]), shards)
    driver.send(facts([Use(0, 0, "4", tenant=name) for name in ("c", "a", "b")]), 2 * 60)
    beyond = [one for one in driver.exceptions() if one["kind"] == "unrated_not_kept"]
    assert [(one["identity"], one["tenant"], one["events"]) for one in beyond] == [
        ("not_kept|subject:c|tokens|2024-01", "c", 1)
    ]
    driver.restart()
    driver.send(facts([]), 10 * 60)
    assert driver.rows("sealed")["quantity"].sum() == 8
    assert driver.rows("unrated")["quantity"].sum() == 4, "what was not kept stays unrated"
    driver.send(facts([Use(601, 601, "2", tenant="c")]), 12 * 60)
    assert driver.rows("sealed")["quantity"].sum() == 10


def test_there_is_room_again_once_prices_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_pending, "PENDING_ROWS_MAX", 1)
    before = revision([version(PER_TOKEN)], [customer("other")])
    after = revision([version(PER_TOKEN)], [customer("abc", subjects=["a"])], (HOUR0 + 5) * 3_600_000)
    driver = Driver(History([before, after]))
    driver.send(facts([Use(0, 0, "4", tenant="a"), Use(360, 360, "3", tenant="b")]), 12 * 60)
    assert [one["kind"] for one in driver.exceptions()] == ["unrated", "unrated"]
