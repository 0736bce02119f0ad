"""The client on a real Valkey: what it needs to be allowed, and what it says when it is refused."""

from collections.abc import Iterator

import pytest
import redis
from pydantic import SecretStr

from config.settings import RedisSettings
from core.errors import InvalidRequest
from core.redis_client import connect, guarded, server_time_ms


@pytest.fixture
def settings(redis_url: str) -> Iterator[RedisSettings]:
    """Settings of a user who may ask for the time, and nothing else."""
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "timekeeper", "on", ">pw-1", "-@all", "+time")
        yield RedisSettings(url=redis_url, username="timekeeper", password=SecretStr("pw-1"))
        client.execute_command("ACL", "DELUSER", "timekeeper")


def test_connecting_needs_no_right_but_that_of_the_command(settings: RedisSettings) -> None:
    with connect(settings) as client:
        assert server_time_ms(client, settings) > 1_700_000_000_000


def test_a_wrong_password_names_the_setting_and_not_the_password(settings: RedisSettings) -> None:
    wrong = settings.model_copy(update={"password": SecretStr("hunter2")})
    with connect(wrong) as client, pytest.raises(InvalidRequest, match="METERBRIDGE_REDIS__USERNAME") as refused:
        server_time_ms(client, wrong)
    assert "hunter2" not in str(refused.value)


def test_a_command_that_is_not_permitted_is_named(settings: RedisSettings) -> None:
    with connect(settings) as client, pytest.raises(InvalidRequest, match="xlen"), guarded(settings):
        client.xlen("usage:0")
