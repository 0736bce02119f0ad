from datetime import UTC, datetime
from typing import Any

from config.revision import Configuration, Revision
from config.subjects import SubjectIndex


def index(*customers: dict[str, Any]) -> SubjectIndex:
    return SubjectIndex(Revision(Configuration.model_validate({"customers": list(customers)})))


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def who(subjects: SubjectIndex, subject: str, when_us: int) -> str | None:
    customer = subjects.customer_at(subject, when_us)
    return None if customer is None else customer.id


def test_subject_without_times_belongs_for_ever() -> None:
    subjects = index({"id": "acme", "subjects": ["acme", "acme-eu"]})
    assert who(subjects, "acme-eu", -(10**18)) == "acme"
    assert who(subjects, "acme-eu", 10**18) == "acme"
    assert who(subjects, "other", 0) is None
    assert subjects.subjects() == ("acme", "acme-eu")


def test_assignment_counts_from_its_beginning_to_just_before_its_end() -> None:
    subjects = index(
        {"id": "acme", "subjects": [{"id": "s", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}]}
    )
    assert who(subjects, "s", us("2026-01-01") - 1) is None
    assert who(subjects, "s", us("2026-01-01")) == "acme"
    assert who(subjects, "s", us("2026-02-01") - 1) == "acme"
    assert who(subjects, "s", us("2026-02-01")) is None


def test_next_assignment_ends_the_one_before() -> None:
    subjects = index(
        {"id": "old", "subjects": ["s"]},
        {"id": "new", "subjects": [{"id": "s", "from": "2026-03-01T00:00:00Z"}]},
        {"id": "last", "subjects": [{"id": "s", "from": "2026-05-01T00:00:00Z", "to": "2026-06-01T00:00:00Z"}]},
    )
    assert who(subjects, "s", us("2026-03-01") - 1) == "old"
    assert who(subjects, "s", us("2026-03-01")) == "new"
    assert who(subjects, "s", us("2026-05-01")) == "last"
    # The last one's end is no return to the one before: it had ended.
    assert who(subjects, "s", us("2026-06-01")) is None


def test_a_subject_can_come_back() -> None:
    subjects = index(
        {"id": "a", "subjects": ["s", {"id": "s", "from": "2026-05-01T00:00:00Z"}]},
        {"id": "b", "subjects": [{"id": "s", "from": "2026-03-01T00:00:00Z"}]},
    )
    assert [who(subjects, "s", us(f"2026-0{month}-15")) for month in (2, 3, 5)] == ["a", "b", "a"]
