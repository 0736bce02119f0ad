import pytest
from pydantic import ValidationError

from config import entities
from config.customers import BillingPeriod


def test_time_zones_are_known_by_name_and_listed_once() -> None:
    entities._zones.cache_clear()
    for _ in range(100):
        BillingPeriod(timezone="Europe/Berlin")
    with pytest.raises(ValidationError, match="unknown time zone 'Mars/Phobos'"):
        BillingPeriod(timezone="Mars/Phobos")
    assert entities._zones.cache_info().misses == 1
