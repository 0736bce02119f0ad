import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from config.settings import ClickHouseSettings
from core.errors import FatalError, RetryableError, Unreachable
from sinks.clickhouse.client import connect
from sinks.clickhouse.errors import classify

SETTINGS = ClickHouseSettings(url="http://ch:8123")


@pytest.mark.parametrize("code", [159, 202, 209, 210, 241, 242, 243, 252, 285, 319, 999])
def test_codes_that_waiting_cures_are_retryable(code: int) -> None:
    error = classify(DatabaseError("boom", code=code), SETTINGS, "inserting")
    assert isinstance(error, RetryableError)
    assert f"code {code}" in str(error)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (60, "meterbridge migrate"),
        (81, "METERBRIDGE_CLICKHOUSE__DATABASE"),
        (16, "meterbridge migrate"),
        (53, "correct the cause"),
        (164, "may only read"),
        (497, "right"),
        (516, "METERBRIDGE_CLICKHOUSE__PASSWORD"),
    ],
)
def test_codes_that_need_a_person_are_fatal_and_say_what_to_do(code: int, advice: str) -> None:
    error = classify(DatabaseError("boom", code=code), SETTINGS, "inserting")
    assert isinstance(error, FatalError)
    assert f"code {code}" in str(error)
    assert advice in str(error)
    assert "http://ch:8123" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, Unreachable), (502, Unreachable), (503, Unreachable), (429, Unreachable), (408, Unreachable)],
)
def test_answers_without_a_code_go_by_their_status(status: int, kind: type[Exception]) -> None:
    error = classify(DatabaseError(f"HTTP driver received HTTP status {status}"), SETTINGS, "inserting")
    assert isinstance(error, kind)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_client_errors_without_a_code_are_fatal(status: int) -> None:
    error = classify(DatabaseError(f"HTTP driver received HTTP status {status}"), SETTINGS, "inserting")
    assert isinstance(error, FatalError)


def test_no_answer_at_all_is_unreachable_and_names_the_setting() -> None:
    error = classify(OperationalError("Error executing HTTP request"), SETTINGS, "inserting")
    assert isinstance(error, Unreachable)
    assert "METERBRIDGE_CLICKHOUSE__URL" in str(error)


def test_a_password_in_the_address_is_not_shown() -> None:
    settings = ClickHouseSettings(url="http://me:hunter2@host:8123")
    for failure in (OperationalError("Error executing HTTP request"), DatabaseError("no", code=60)):
        text = str(classify(failure, settings, "inserting"))
        assert "http://me:***@host:8123" in text
        assert "hunter2" not in text
    with pytest.raises(FatalError) as refused:
        connect(settings.model_copy(update={"url": "htp://me:hunter2@host"}))
    assert "hunter2" not in str(refused.value)


def test_long_answers_are_cut() -> None:
    assert len(str(classify(DatabaseError("x" * 10_000, code=60), SETTINGS, "inserting"))) < 1000


def test_a_login_in_the_url_is_refused_since_it_would_not_be_used() -> None:
    with pytest.raises(FatalError, match="METERBRIDGE_CLICKHOUSE__USERNAME") as caught:
        connect(ClickHouseSettings(url="http://me:hunter2@127.0.0.1:1"))
    assert "hunter2" not in str(caught.value)
