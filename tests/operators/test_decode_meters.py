"""What meters take from events, and voids; each checked on both paths."""

from decimal import Decimal
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.meters import Meter
from core import digests
from operators.void_decode import original_type
from tests.operators.decode_cases import (
    NOW,
    NOW_MS,
    batch_of,
    decode_one_shard,
    event,
    history,
    text,
    verdict,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
BOTH = pytest.mark.parametrize("only_slow", [False, True], ids=["fast", "slow"])


def columns(data: dict[str, Any] | bytes, only_slow: bool, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the meter columns that are not null, and the details of exceptions."""
    line = text(data={}, **changes).replace(b"{}", data) if isinstance(data, bytes) else text(data=data, **changes)
    # A neighbour of the same type whose values are all good text.
    events, rejects = decode_one_shard(batch_of([line, text()]), only_slow=only_slow)
    assert len(events) == 2
    assert not rejects["counted"].any()
    row = events.row(0, named=True)
    return {name: value for name, value in row.items() if ":" in name and value is not None}, rejects[
        "detail"
    ].to_list()


@BOTH
def test_every_meter_of_the_type_gets_its_columns(only_slow: bool) -> None:
    data = {"n": 5, "model": "m", "region": "eu", "user": "u", "deep": {"n": "-1.5", "zone": "z"}}
    assert columns(data, only_slow) == (
        {
            "v:total": Decimal(5),
            "d:total": '{"model":"m"}',
            "v:signed": Decimal("-1.5"),
            "d:signed": '{"model":"m","zone":"z"}',
            "v:eu": Decimal(1),
            "d:eu": '{"region":"eu"}',
            "u:users": "u",
            "d:users": "{}",
        },
        [],
    )


@BOTH
def test_types_of_columns(only_slow: bool) -> None:
    events, _ = decode_one_shard(batch_of([text(type="other")]), only_slow=only_slow)
    kinds = {name: kind for name, kind in events.schema.items() if ":" in name}
    assert {kinds[name] for name in kinds if name.startswith("v:")} == {pl.Decimal(38, 12)}
    assert {kinds[name] for name in kinds if not name.startswith("v:")} == {pl.String()}
    assert list(kinds) == [
        "v:total", "d:total", "v:signed", "d:signed", "v:eu", "d:eu",
        "u:users", "d:users", "v:peak", "d:peak", "v:level", "d:level",
    ]  # fmt: skip
    assert all(value is None for name, value in events.row(0, named=True).items() if ":" in name)


@BOTH
def test_meters_that_cannot_read_are_exceptions_when_others_can(only_slow: bool) -> None:
    found, details = columns({"n": -5, "user": None, "region": "us", "deep": {"n": 1}}, only_slow)
    assert found == {"v:signed": Decimal(1), "d:signed": '{"model":"","zone":""}'}
    assert len(details) == 2
    assert details[0].startswith("meter total: $.n ")
    assert details[1].startswith("meter users: $.user ")


@BOTH
def test_a_filter_that_excludes_is_no_exception(only_slow: bool) -> None:
    meters = (Meter(id="s", event_type="call", aggregation="sum", value="$.n", filter={"region": ("eu",)}),)
    used = history(meters)
    assert verdict(text(data={"n": "bad", "region": "us"}), used, only_slow=only_slow) == ("accepted", "")
    assert verdict(text(data={"region": "us"}), used, only_slow=only_slow) == ("accepted", "")
    assert verdict(text(data={"n": "bad", "region": "eu"}), used, only_slow=only_slow)[0] == "invalid_quantity"


@BOTH
@pytest.mark.parametrize(
    ("value", "dimension"),
    [
        (b'"gpt \\"4\\" \\u00e9 \\n \\/"', 'gpt "4" é \n /'),
        (b"null", ""),
        (b"5", "5"),
        (b"-0", "0"),
        (b"1.50", "1.5"),
        (b"1e2", "100.0"),
        (b"0.0000001", "1e-07"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"true", "true"),
        (b"false", "false"),
        (b'{ "b" : [1.50, "x y"], "b": 2 }', '{"b":[1.50,"x y"],"b":2}'),
        (b"[ ]", "[]"),
        ('"\u2028</😀"'.encode(), "\u2028</😀"),
    ],
)
def test_dimension_texts(value: bytes, dimension: str, only_slow: bool) -> None:
    found, _ = columns(b'{"n":1,"model":' + value + b"}", only_slow)
    assert found["d:total"] == orjson.dumps({"model": dimension}).decode()


@BOTH
@pytest.mark.parametrize(
    ("value", "text_of_it"),
    [
        (b'"u"', "u"),
        (b'""', ""),
        (b"7", "7"),
        (b"1.0", "1.0"),
        (b"true", "true"),
        (b"null", None),
        (b"{}", None),
        (b"[1]", None),
    ],
)
def test_unique_values(value: bytes, text_of_it: str | None, only_slow: bool) -> None:
    found, details = columns(b'{"n":1,"deep":{"n":1},"user":' + value + b"}", only_slow)
    assert found.get("u:users") == text_of_it
    assert ("d:users" in found) == (text_of_it is not None)
    assert len(details) == (text_of_it is None)


@BOTH
@pytest.mark.parametrize(
    ("value", "quantity"),
    [
        (b"5", "5"),
        (b'"5"', "5"),
        (b"0.1", "0.1"),
        (b"1e400", None),
        (b'"1e3"', "1000"),
        (b"9007199254740993", "9007199254740993"),
        (b"0.0000000000005", "0"),
        (b"0.0000000000015", "0.000000000002"),
        (b"999999999999999999", "999999999999999999"),
        (b"1000000000000000000", None),
        (b"-1000000000000000000", None),
        (b"true", None),
        (b'""', None),
        (b'" 5"', None),
        (b'"+5"', None),
        (b"null", None),
        (b"{}", None),
        (b"[5]", None),
        (b'"0.30000000000000004441"', "0.3"),
        (b"0.30000000000000004", "0.3"),
        (b"-2.5", "-2.5"),
        (b"-0", "0"),
        (b"123456789012345678.123456789012", "123456789012345680"),
        (b'"123456789012345678.123456789012"', "123456789012345678.123456789012"),
    ],
)
def test_quantities(value: bytes, quantity: str | None, only_slow: bool) -> None:
    found, _ = columns(b'{"n":1,"deep":{"n":' + value + b"}}", only_slow)
    assert found.get("v:signed") == (None if quantity is None else Decimal(quantity))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=6)] * 3), min_size=1, max_size=20)
)
def test_dimensions_are_canonical_json(rows: list[tuple[str, str, str]]) -> None:
    meter = Meter(
        id="c", event_type="call", aggregation="count", group_by={"b.x": "$.one", "a": "$.two", "A-z": "$.three"}
    )
    lines = [text(data={"one": one, "two": two, "three": three}) for one, two, three in rows]
    events, _ = decode_one_shard(batch_of(lines), history((meter,)))
    assert events["d:c"].to_list() == [
        orjson.dumps({"b.x": one, "a": two, "A-z": three}, option=orjson.OPT_SORT_KEYS).decode()
        for one, two, three in rows
    ]


def test_many_types_in_one_batch() -> None:
    kinds = ["call", "load", "other"]
    lines = [text(id=str(number), type=kinds[number % 3], data={"n": number, "m": number}) for number in range(30)]
    events, _ = decode_one_shard(batch_of(lines))
    for number, row in enumerate(events.iter_rows(named=True)):
        assert row["id"] == str(number)
        assert row["v:total"] == (number if number % 3 == 0 else None)
        assert row["v:peak"] == row["v:level"] == (number if number % 3 == 1 else None)
        assert row["d:level"] == (f'{{"n":"{number}"}}' if number % 3 == 1 else None)


# --- voids -------------------------------------------------------------------------------------------------


def void(original: dict[str, Any], **changes: Any) -> bytes:
    return text(**{"id": "v-1", "source": "/ops", "type": "meterbridge.void", "data": original, **changes})


@BOTH
def test_a_void_carries_its_original(only_slow: bool) -> None:
    original = event(time="2026-01-01T00:00:30Z")  # far too old for an event of its own
    events, rejects = decode_one_shard(batch_of([void(original), text()]), only_slow=only_slow)
    row = events.row(0, named=True)
    assert (row["source"], row["id"], row["type"], row["tenant"]) == ("/ops", "v-1", "meterbridge.void", "acme")
    assert (row["identity_hi"], row["identity_lo"]) == digests.identity("/api", "e-1")
    data = orjson.dumps(original["data"]).decode()
    assert row["content"] == digests.content("acme", "call", "2026-01-01T00:00:30Z", data)
    own = digests.content("acme", "meterbridge.void", NOW, orjson.dumps(original).decode())
    assert row["void_content"] == digests.void_content("/ops", "v-1", own)
    assert row["sign"] == -1
    assert row["event_time_us"] == NOW_MS * 1000
    assert row["usage_time_us"] == 1_767_225_630_000_000
    assert (row["v:total"], row["d:total"], row["v:eu"]) == (5, '{"model":"m"}', 1)
    assert row["u:users"] is None
    assert rejects.select("entry_seq", "counted", "reason").rows() == [(0, False, "invalid_quantity")]
    assert "users" in rejects["detail"][0]
    assert original_type(row["raw"]) == "call"


@BOTH
def test_the_content_of_a_void_is_that_of_the_original_as_it_came(only_slow: bool) -> None:
    original = text(time=...).replace(b'"n":5', b'"n": 5.00')
    line = void({}, time=...).replace(b"{}", b" " + original)
    events, _ = decode_one_shard(batch_of([original, line]), only_slow=only_slow)
    assert events["content"][0] == events["content"][1]
    assert events["usage_time_us"].to_list() == [NOW_MS * 1000, None]


@BOTH
@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (void({}), "specversion"),
        (void(event(subject="globex")), "subject"),
        (void(event(data=[])), "data"),
        (void(event(time="x")), "time"),
        (void(event(type="meterbridge.void", data=event())), "void"),
        (void(event(type="load", data={"n": "x"})), "peak"),
    ],
)
def test_voids_of_what_is_no_event(line: bytes, detail: str, only_slow: bool) -> None:
    reason, said = verdict(line, only_slow=only_slow)
    assert reason == "invalid_field"
    assert detail in said


@BOTH
def test_voids_of_other_aggregations_and_of_unmetered_types(only_slow: bool) -> None:
    lines = [
        void(event(type="load", data={"n": 1, "m": 2})),
        void(event(type="other")),
        void(event(), time="2027-01-01T00:00:00Z"),
    ]
    events, rejects = decode_one_shard(batch_of(lines), only_slow=only_slow)
    assert len(events) == 2
    assert all(value is None for row in events.iter_rows(named=True) for name, value in row.items() if ":" in name)
    assert rejects.select("entry_seq", "counted", "reason").rows() == [
        (0, False, "invalid_quantity"),
        (0, False, "invalid_quantity"),
        (2, True, "future_time"),
    ]
