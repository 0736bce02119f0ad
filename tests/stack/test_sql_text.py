import pytest

from stack.sql_text import is_streamable, parse_insert, result_format


@pytest.mark.parametrize(
    ("statement", "target", "name", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x09data", "INSERT INTO t", "Native", b"\x09data"),
        (b"insert into `a b`.`c``` (`x`, y) format CSV\r\n1", "insert into `a b`.`c``` (`x`, y)", "CSV", b"1"),
        (b'INSERT INTO TABLE "q"."t" FORMAT Values (1)', 'INSERT INTO TABLE "q"."t"', "Values", b"(1)"),
        (b"\n INSERT INTO db.t(a,b) FORMAT Arrow\n\n", "INSERT INTO db.t(a,b)", "Arrow", b"\n"),
    ],
)
def test_inserts_are_split_from_their_data(statement: bytes, target: str, name: str, data: bytes) -> None:
    found = parse_insert(statement)
    if "```" in target:  # a doubled back quote is not ours to read: the engine does
        assert found is None
        return
    assert found is not None
    assert (found.target, found.format, statement[found.data_at :]) == (target, name, data)


@pytest.mark.parametrize(
    "statement",
    [
        b"INSERT INTO t VALUES (1, 'x FORMAT CSV\n')",
        b"INSERT INTO t SELECT 1 FORMAT Null",
        b"SELECT 'INSERT INTO t FORMAT CSV'",
        b"INSERT INTO FUNCTION file('x') FORMAT CSV\n1",
    ],
)
def test_other_statements_are_left_alone(statement: bytes) -> None:
    assert parse_insert(statement) is None


def test_settings_of_an_insert_are_kept_and_the_path_is_quoted() -> None:
    found = parse_insert(b"INSERT INTO t SETTINGS async_insert = 0, x = 'y' FORMAT CSV\n1")
    assert found is not None
    assert found.from_file("/spool/a'b") == (
        "INSERT INTO t FROM INFILE '/spool/a\\'b' SETTINGS async_insert = 0, x = 'y' FORMAT CSV"
    )


@pytest.mark.parametrize(
    ("sql", "shown", "streamable"),
    [
        ("SELECT 1", "TSV", True),
        ("-- note\n /* x */ (WITH 1 AS a SELECT a)\n FORMAT Native", "Native", True),
        ("SELECT 1 FORMAT JSON;", "JSON", False),
        ("SHOW TABLES", "TSV", False),
        ("INSERT INTO t VALUES (1)", None, False),
        ("CREATE TABLE t (a Int8)", None, False),
    ],
)
def test_formats_and_streaming(sql: str, shown: str | None, streamable: bool) -> None:
    assert result_format(sql, "TSV") == shown
    assert is_streamable(sql, shown) is streamable
