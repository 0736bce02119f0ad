"""Tokens and sessions: shown once, stored as digests, ended by time, by hand, and with each other."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from core.errors import InvalidRequest
from sinks.ledger import audit, tables, tokens
from sinks.ledger.database import read

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _make(engine: Engine, role: str = "viewer", *tenants: str, valid_for: timedelta | None = None) -> tuple[str, str]:
    token, text = tokens.create(engine, "CI", role, tenants=tenants, actor="me", now=NOW, valid_for=valid_for)
    return token.id, text


def test_a_token_is_known_by_its_text_alone(engine: Engine) -> None:
    token_id, text = _make(engine, "operator", "b", "a", "b")
    found = tokens.verify(engine, text, NOW)
    assert found is not None
    assert (found.id, found.name, found.role, found.tenants) == (token_id, "CI", "operator", ("a", "b"))
    other = "A" if text[-1] != "A" else "B"
    for wrong in (text[:-1] + other, text[:-1], text + "A", "", token_id, f"mb_{token_id}_", text.upper()):
        assert tokens.verify(engine, wrong, NOW) is None


def test_neither_token_nor_session_stands_in_the_database(engine: Engine) -> None:
    _, text = _make(engine)
    token = tokens.verify(engine, text, NOW)
    assert token is not None
    session = tokens.open_session(engine, token, NOW, HOUR)
    with read(engine) as connection:
        rows = [str(row) for table in tables.metadata.sorted_tables for row in connection.execute(select(table))]
    stored = "\n".join(rows)
    assert text.split("_", 2)[-1] not in stored
    assert session not in stored
    assert token.id in stored


def test_a_token_ends_in_its_time(engine: Engine) -> None:
    _, text = _make(engine, valid_for=HOUR)
    assert tokens.verify(engine, text, NOW + HOUR - timedelta(milliseconds=1)) is not None
    assert tokens.verify(engine, text, NOW + HOUR) is None


def test_revoking_ends_a_token_and_its_sessions_once(engine: Engine) -> None:
    token_id, text = _make(engine)
    kept_id, kept = _make(engine)
    token, other = tokens.verify(engine, text, NOW), tokens.verify(engine, kept, NOW)
    assert token is not None
    assert other is not None
    session, kept_session = (tokens.open_session(engine, one, NOW, HOUR) for one in (token, other))
    assert tokens.revoke(engine, token_id, actor="me", reason="lost", now=NOW)
    assert not tokens.revoke(engine, token_id, actor="me", reason="lost", now=NOW)
    assert tokens.verify(engine, text, NOW) is None
    assert tokens.of_session(engine, session, NOW) is None
    assert tokens.verify(engine, kept, NOW) is not None
    assert tokens.of_session(engine, kept_session, NOW) is not None
    with read(engine) as connection:
        actions = [(row["action"], row["reason"]) for row in audit.entries(connection, token_id)]
    assert actions.count(("revoke_token", "lost")) == 1
    assert actions[-1] == ("create_token", "")
    assert {one.id for one in tokens.known(engine)} == {token_id, kept_id}
    with pytest.raises(InvalidRequest, match="no token 'nobody'"):
        tokens.revoke(engine, "nobody", actor="me", reason="?", now=NOW)


def test_a_session_ends_in_its_time_with_its_token_and_by_log_out(engine: Engine) -> None:
    _, text = _make(engine, valid_for=2 * HOUR)
    token = tokens.verify(engine, text, NOW)
    assert token is not None
    session = tokens.open_session(engine, token, NOW, HOUR)
    found = tokens.of_session(engine, session, NOW + HOUR - timedelta(seconds=1))
    assert found == token
    assert tokens.of_session(engine, session, NOW + HOUR) is None
    longer = tokens.open_session(engine, token, NOW, 5 * HOUR)
    assert tokens.of_session(engine, longer, NOW + 2 * HOUR) is None
    tokens.close_session(engine, longer)
    assert tokens.of_session(engine, longer, NOW) is None
    with read(engine) as connection:
        assert len(connection.execute(select(tables.sessions)).all()) == 1
    tokens.open_session(engine, token, NOW + HOUR, HOUR)
    with read(engine) as connection:
        assert len(connection.execute(select(tables.sessions)).all()) == 1, "what ended is forgotten"


@pytest.mark.parametrize(
    ("name", "role", "tenants", "says"),
    [
        ("x", "root", (), "'root' is no role: use one of producer, viewer, operator, approver, admin"),
        (" ", "viewer", (), "name must have from 1 to 100"),
        ("x" * 101, "viewer", (), "name must have from 1 to 100"),
        ("x", "viewer", ("",), "tenants must not be empty"),
        ("x", "viewer", tuple(map(str, range(1001))), "at most 1000"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: Engine, name: str, role: str, tenants: tuple[str, ...], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        tokens.create(engine, name, role, tenants=tenants, actor="me", now=NOW)
    assert tokens.known(engine) == []
