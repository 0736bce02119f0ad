"""The vectors are stored in dedupe logs and facts: if one of these fails, the code is wrong, never the vector."""

import zlib

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import digests

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def test_pinned_identity() -> None:
    assert digests.identity("/api", "e-1") == (0x665DD71635EE9101, 0x87470A6C79BD00C3)
    assert digests.identity("/api", "e-1") == digests.unique_value("4:/apie-1")
    assert digests.identity("", "") == (0xD3D6486A90AEAA16, 0x7EDA146A64D327F8)
    assert digests.identity("https://é.example/😀", "ID-1") == (0x4BEF5206DDDE04E2, 0x2C043DC6A26190EB)
    assert digests.VOID_XOR == (0x9E4D1C7A53B0F268, 0x61F3A805D97E2CB4)


def test_pinned_content() -> None:
    assert digests.content("acme", "call", "2026-10-31T10:00:00Z", '{"n":5}') == 0xDA3C607E3992F26D
    assert digests.content("acme", "call", None, '{"n":5}') == 0x6A18E584EE6C4783
    assert digests.content("é", "t", "", '{"ü":"😀"}') == 0xCA83015BD35D1271
    assert digests.void_content("/api", "v-1", 0x0123456789ABCDEF) == 0x6DBD294051C12FFD


def test_pinned_unique_value() -> None:
    assert digests.unique_value("") == (0x99AA06D3014798D8, 0x6001C324468D497F)  # XXH3-128 of nothing, as published
    assert digests.unique_value("user-1") == (0xB1B63206A86892EE, 0x898C9E6721C25E42)


def test_pinned_tenant_shards() -> None:
    assert [digests.tenant_shard(tenant, 4) for tenant in ("acme", "globex", "é", "")] == [2, 2, 2, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=20))
def test_identity_columns_agree_with_the_scalar(pairs: list[tuple[str, str]]) -> None:
    frame = pl.DataFrame(pairs, schema={"source": pl.String, "id": pl.String}, orient="row")
    high, low = digests.identities(frame)
    assert list(zip(high.tolist(), low.tolist(), strict=True)) == [digests.identity(*pair) for pair in pairs]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT, TEXT), min_size=1, max_size=20))
def test_content_columns_agree_with_the_scalar(rows: list[tuple[str, str, str | None, str]]) -> None:
    schema = dict.fromkeys(("subject", "type", "time", "data"), pl.String)
    found = digests.contents(pl.DataFrame(rows, schema=schema, orient="row"))
    assert found.tolist() == [digests.content(*row) for row in rows]


def test_encodings_are_unambiguous() -> None:
    assert digests.identity("a", "bc") != digests.identity("ab", "c")
    assert digests.identity("1:", "x") != digests.identity("", "1:x")
    assert digests.content("a", "b", None, "{}") != digests.content("a", "b", "", "{}")
    assert digests.content("a", "bc", None, "{}") != digests.content("ab", "c", None, "{}")
    assert digests.content("a", "b", "-", "{}") != digests.content("a", "b", None, "1:-{}")
    assert digests.void_content("a", "bc", 1) != digests.void_content("ab", "c", 1)
    assert digests.void_content("a", "b", 1) != digests.void_content("a", "b", 2)


def test_void_identity_is_its_own_inverse_and_another_identity() -> None:
    original = digests.identity("/api", "e-1")
    assert digests.void_identity(original) != original
    assert digests.void_identity(digests.void_identity(original)) == original


def test_unique_columns_agree_with_the_scalar() -> None:
    texts = ["", "a", "é", "😀", "a" * 1000]
    high, low = digests.unique_values(pl.Series(texts))
    assert list(zip(high.tolist(), low.tolist(), strict=True)) == [digests.unique_value(text) for text in texts]


@pytest.mark.parametrize("shards", [1, 4, 16])
@pytest.mark.parametrize("distinct", [50, 700])  # each looked at, or joined
def test_tenant_shards(shards: int, distinct: int) -> None:
    tenants = ["acme", "é", "acme", "globex", *map(str, range(distinct))] * 3
    found = digests.tenant_shards(pl.Series(tenants), shards).to_list()
    assert found == [zlib.crc32(tenant.encode("utf-8")) % shards for tenant in tenants]
    assert found == [digests.tenant_shard(tenant, shards) for tenant in tenants]
