"""The paths of decode must agree on every input, whatever it is: compiled code, columns, and one by one."""

import time
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode_entries import lines_of
from operators.decode_fast import decode_envelopes
from operators.decode_plan import RevisionPlan
from tests.operators.decode_cases import assert_paths_agree, batch_of, history, text, verdict

DATA = b'{"n":5,"model":"m","region":"eu","user":"u","deep":{"n":1}}'
HEAD = b'{"specversion":"1.0","id":"e","source":"s","type":"call","subject":"acme","data":'


def with_data(data: bytes) -> bytes:
    return HEAD + data + b"}"


NUMBERS = [
    b"0", b"-0", b"-0.0", b"0.0", b"1", b"-1", b"1e2", b"1E+2", b"1e-7", b"0.1", b"1.10", b"1e400", b"-1e400",
    b"1e-400", b"1e22", b"1e17", b"1e18", b"999999999999999999", b"1000000000000000000", b"-999999999999999999",
    b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"12345678901234567890123",
    b"9007199254740993", b"9007199254740993.0", b"0.1000000000000000055511151231257827", b"123456789.123456789123",
    b"0.0000000000005", b"0.0000000000015", b"0.00000000000049999", b"1.7976931348623159e308", b"5e-324",
    b"1" * 400, b"1" * 4400, b"0." + b"1" * 500, b"01", b"1.", b".5", b"+1", b"NaN", b"Infinity", b"-Infinity",
    b"-", b"1e", b"0x1", b"1_0", b"999999999999999999.9999999999994", b"999999999999999999.9999999999995",
]  # fmt: skip
STRINGS = [
    b'"5"', b'"5.50"', b'"-0"', b'"-5"', b'"+5"', b'" 5"', b'"5 "', b'"1e3"', b'"1E-3"', b'"1_0"', b'"0x1F"',
    b'".5"', b'"5."', b'""', b'"NaN"', b'"inf"', b'"007"', b'"0.0000000000005"', b'"0.0000000000015"',
    b'"1e999999999999"', b'"1e-999999999999"', b'"-1e-999999999999"', b'"0e999999999999"',
    b'"999999999999999999.999999999999"', b'"999999999999999999.9999999999995"', b'"1000000000000000000"',
    b'"' + b"9" * 300 + b'"', b'"\\u0035"', b'"5\\n"', b'"\xd9\xa5"', b'"0.1234567890125"', b'"0.1234567890135"',
    b'"gpt \\"4\\""', b'"\\u00e9\\/"', b'"a b"', b'"\xf0\x9f\x98\x80"', b'"\\ud83d\\ude00"', b'"\\ud83d"',
    b'"\\udc00x"', b'"\\u0000"', b'"\\u007f"', b'"\x7f"', b'"\x00"', b'"\xff"', b'"\\q"', b'"eu"', b'"\xc2\x80"',
    b'"\xe2\x80\xa8"', b'"<>&"',
]  # fmt: skip
OTHERS = [
    b"true", b"false", b"null", b"{}", b"[]", b'{"a":1}', b'{ "a" : [1, 2.50] }', b'{"a":1,"a":2}', b"[1,]", b"tru",
    b"", b"[" * 200 + b"]" * 200, b"[" * 125 + b"]" * 125, b"[" * 126 + b"]" * 126, b"[" * 127 + b"]" * 127,
    b"[" * 2000 + b"]" * 2000, b'["\\\\",' * 125 + b"1" + b"]" * 125, b'["\\\\\\"]",' * 126 + b"1" + b"]" * 126,
    b'["\\\\",' * 127 + b"1" + b"]" * 127, b'["]]","\\"]",' * 127 + b"1" + b"]" * 127, b'"' + b"[" * 300 + b'"',
    b"[[]," * 100 + b"1" + b"]" * 100,
]  # fmt: skip
VALUES = NUMBERS + STRINGS + OTHERS


@pytest.mark.parametrize("place", [b"n", b"model", b"region", b"user", b"deep", b"unused"])
def test_values_everywhere(place: bytes) -> None:
    lines = []
    for value in VALUES:
        lines.append(with_data(DATA[:-1] + b',"' + place + b'":' + value + b"}"))
        lines.append(with_data(b'{"' + place + b'":' + value + b"," + DATA[1:]))
        lines.append(with_data(b'{"' + place + b'":' + value + b"}"))
        lines.append(with_data(b'{"n":1,"deep":{"n":' + value + b',"zone":' + value + b"}}"))
    assert_paths_agree(lines)
    for line in lines[:: len(lines) // 40]:  # alone, so that no neighbour sends the batch down another way
        assert_paths_agree([line])


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "subject", "time", "dataschema", "data", "x"])
def test_attributes(name: str) -> None:
    key = b'"' + name.encode() + b'":'
    lines = [text(**{name: ...}), text(**{name: "x" * 256}), text(**{name: "x" * 257}), text(**{name: "x" * 1024})]
    wrong: list[Any] = ["x", 5, [], {}]
    lines += [text(**{"type": "other", name: value}) for value in wrong]
    lines += [text(**{name: "x" * 1025}), text(**{name: "é" * 256}), text(**{name: "é" * 1024}), text(**{name: "a\tb"})]
    for value in VALUES:
        lines.append(text()[:-1] + b"," + key + value + b"}")
        lines.append(b"{" + key + value + b"," + text()[1:])
        lines.append(b"{" + key + value + b"," + text(**{name: ...})[1:])
    assert_paths_agree(lines)
    for line in lines[:: len(lines) // 30]:
        assert_paths_agree([line])


SHAPES = [
    b"", b" ", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"}", b"{}}", b"\xef\xbb\xbf" + text(), text() + text(),
    text() + b" " + text(), text() + b"\n" + text(), text() + b",", text() + b"\x00", text()[:-1], text()[1:],
    b"\r\n" + text() + b"\r\n", b"\x0b" + text(), b"\xc2\xa0" + text(), text() + b"x",
    text().replace(b",", b" ,\n\t"), text().replace(b":", b" : "), text().replace(b'"', b"'"),
    text().replace(b",", b",,"), text().replace(b'"id"', b'"i\\u0064"'), text().replace(b'"n"', b'"\\u006e"'),
    text().replace(b'"data"', b'"dat\\u0061"'), text()[:-1] + b',"k":"}\n{"}', text()[:-1] + b',"\\ud800":1}',
    text()[:-1] + b',"\xff":1}', text()[:-1] + b',"\\n":"\\n"}', text()[:-1] + b",}", b'{"a":[{}', b'{"}',
    b'{"a":"}', b"{}]}", text().decode().encode("utf-16"), text()[:-1] + b',"big":"' + b"x" * 300000 + b'"}',
    text(data={"n": 1, "model": "x" * 100000, "user": " " * 10000}),
]  # fmt: skip


def test_shapes() -> None:
    assert_paths_agree(SHAPES)
    assert_paths_agree([line for shape in SHAPES for line in (text(), shape, text())])
    for shape in SHAPES:
        assert_paths_agree([shape])
        assert_paths_agree([text(), shape])


def test_lines_cannot_be_read_across_their_ends() -> None:
    # Together these have as many documents as lines, and none of them is a line.
    assert len(assert_paths_agree([text() + b"\n" + text(), text()[:-1], b"}"])) == 0
    assert len(assert_paths_agree([b'{"a":[' + text(), text() + b"]}", text() + b" " + text()])) == 0
    assert len(assert_paths_agree([text()[:-1] + b',"x":[1,', b"{}]}", text() + b" " + text()])) == 0
    assert len(assert_paths_agree([text()[:-1] + b',"x":{}', b',"y":1}', text() + text()])) == 0
    assert len(assert_paths_agree([b'{"a":"' + text(), text() + b'"}', text() + text()])) == 0


TIMES = [
    "2026-10-31T10:00:00Z", "2026-10-31t10:00:00z", "2026-10-31T10:00:00.5Z", "2026-10-31T10:00:00.123456789Z",
    "2026-10-31T10:00:00.1234567890123Z", "2026-10-31T12:00:00+02:00", "2026-10-31T10:00:00-00:00",
    "2026-10-31T10:00:00", "2026-10-31 10:00:00Z", "2026-10-31T10:00Z", "2026-10-31T24:00:00Z",
    "2026-10-31T10:60:00Z", "2026-10-31T09:59:60Z", "2026-10-30T23:59:60Z", "2026-10-30T23:59:60.5Z",
    "2026-10-30T23:59:61Z", "2026-10-31T01:59:60+02:00", "2026-02-29T00:00:00Z", "2026-11-31T00:00:00Z",
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999Z", "20261031T100000Z",
    "2026-10-31T10:00:00.Z", "2026-10-31T10:00:00+24:00", "2026-10-31T10:00:00+0200", "2026-10-31T10:00:00 Z", "",
    "now", "\uff12026-10-31T10:00:00Z", "2026-10-31T10:00:0\u0660Z", "2026-10-31T10:05:00Z",
    "2026-10-31T10:05:00.000001Z", "2026-09-26T10:00:00Z", "2026-09-26T09:59:59.999999Z",
    "2026-10-31T10:00:00." + "1" * 60 + "Z", "-026-10-31T10:00:00Z",
]  # fmt: skip


def test_times() -> None:
    assert_paths_agree([text(time=moment) for moment in TIMES])
    for moment in TIMES:
        assert_paths_agree([text(time=moment)])
        assert_paths_agree([text(type="meterbridge.void", data={"specversion": "1.0", "time": moment})])


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False, places=13, min_value=-(10**6), max_value=10**6).map(str)
    | st.text(max_size=8)
    | st.sampled_from(["eu", "5", "1.5", "true", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["n", "zone", "a"]) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
DATAS = st.dictionaries(
    st.sampled_from(["n", "m", "model", "region", "user", "deep", "x"]), JSON_VALUES, max_size=6
) | st.fixed_dictionaries({"n": JSON_VALUES, "deep": st.fixed_dictionaries({"n": JSON_VALUES, "zone": JSON_VALUES})})


@st.composite
def events(draw: st.DrawFn) -> bytes:
    changes: dict[str, Any] = {"data": draw(DATAS)}
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(["id", "source", "subject", "type", "time", "specversion", "dataschema", "data"]))
        changes[name] = draw(JSON_VALUES | st.just(...))
    changes.setdefault("type", draw(st.sampled_from(["call", "load", "other", "meterbridge.void"])))
    changes.setdefault("time", draw(st.sampled_from(TIMES[:5])))
    if changes["type"] == "meterbridge.void" and draw(st.booleans()):
        changes["data"] = orjson.loads(text(data=draw(DATAS), type=draw(st.sampled_from(["call", "load", "other"]))))
    indent = orjson.OPT_INDENT_2 if draw(st.integers(0, 4)) == 0 else 0
    return orjson.dumps(orjson.loads(text(**changes)), option=indent)


PIECES = [b'"', b"{", b"}", b",", b":", b"\\", b"[", b"]", b"\n", b"0", b" "]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    line = bytearray(draw(events()))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(line) - 1)))
        piece = draw(st.binary(max_size=2) | st.sampled_from(PIECES))
        line[place : place + draw(st.integers(0, 2))] = piece
    return bytes(line)


@settings(max_examples=150, deadline=None)
@given(st.lists(events() | mutated() | st.sampled_from(SHAPES[:30]), min_size=1, max_size=12))
def test_generated(lines: list[bytes]) -> None:
    assert_paths_agree(lines)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(st.lists(mutated() | st.sampled_from(SHAPES[:30]), min_size=1, max_size=40))
def test_generated_at_length(lines: list[bytes]) -> None:
    assert_paths_agree(lines)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1e18), min_size=1, max_size=30))
def test_generated_doubles(values: list[float]) -> None:
    assert_paths_agree([text(data={"n": value, "deep": {"n": value}, "model": value}) for value in values])


def test_columns_of_integers_alone() -> None:
    for large in ([10**18 - 1, 1 - 10**18], [10**18, 5], [-(10**18), 5], [2**63, 5], [-(2**70), 5]):
        lines = [text(data={"n": 1, "deep": {"n": 0}}).replace(b'{"n":0}', b'{"n":%d}' % value) for value in large]
        assert_paths_agree(lines)


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_malformed_json_is_what_another_parser_refuses(line: bytes) -> None:
    reason, _ = verdict(line.strip(b" \t\r\n"), only_slow=True)
    try:
        is_object = isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError as error:
        is_object = "infinity" in str(error)  # syntax that is right, but a number out of range
    assert (reason != "malformed_json") == is_object


@pytest.mark.parametrize(
    "line",
    [
        b'{"x":' + b"[" * 200 + b'"' + b'\\"' * 400_000,
        text(data={"n": "@"}).replace(b"@", b"\\u0041" * 150_000),
        text(data={"n": "@", "deep": 1}).replace(b'"@"', b"[" + b'{"a":1},' * 100_000 + b"1]"),
        b'{"' + b'a":1,"' * 150_000,
        text(data={"n": 1}).replace(b"}", b"," + b'"n":1,' * 100_000 + b'"n":2}', 1),
    ],
)
def test_large_and_hostile_lines_take_linear_time(line: bytes) -> None:
    assert len(line) < 1 << 20
    begin = time.process_time()
    assert_paths_agree([line])
    assert time.process_time() - begin < 5


def test_good_events_stay_on_the_fast_path() -> None:
    lines = [text(id=str(number), data={"n": number, "deep": {"n": "1.5"}, "user": 1}) for number in range(50)]
    lines[7] = b"{}"
    lines[8] = text(data={"n": 1, "deep": {"n": 1, "x": [[]] * 500 + ['\\"[[[', "]]]\\\\"]}, "user": 1})
    plan = RevisionPlan(history().latest)
    decided = decode_envelopes(lines_of(batch_of(lines), 0, 50, 1 << 20, 1000), np.arange(50), plan).row.tolist()
    assert decided == [row for row in range(50) if row != 7]
