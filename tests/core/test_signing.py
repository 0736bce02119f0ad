"""Signatures prove the text and the key, and never show the key."""

import hashlib
import hmac
from pathlib import Path

import pytest

from core.errors import InvalidRequest
from core.signing import Key, read_key

SECRET = b"0123456789abcdef0123456789abcdef"


def test_a_signature_is_the_hmac_of_purpose_and_text() -> None:
    key = Key.of(SECRET)
    expected = hmac.new(SECRET, b"meterbridge.seal/1\n{}", hashlib.sha256).hexdigest()
    assert key.sign(b"{}") == expected
    assert key.signed(b"{}", expected)
    assert not key.signed(b"{ }", expected)
    assert not Key.of(SECRET + b"!").signed(b"{}", expected)


def test_a_key_is_named_without_telling_it() -> None:
    key = Key.of(SECRET)
    assert key.id == Key.of(SECRET).id != Key.of(SECRET + b"!").id
    assert SECRET.decode() not in f"{key!r} {key}"
    assert SECRET.decode()[:8] not in key.id


def test_white_space_around_a_key_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\n " + SECRET + b"\n")
    assert read_key(path).id == Key.of(SECRET).id


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"short", "32 to"), (b"x" * 5_000, "32 to")])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=said) as caught:
        read_key(path)
    assert "xxxx" not in str(caught.value)
