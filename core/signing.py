"""Signatures of summaries: HMAC-SHA256 with a key from a secret file. Keys are never printed or stored elsewhere.

A signature proves that the text was signed by somebody who held the key, and not changed since. It does not prove
when, and everyone who can check it could have made it: keep the key away from those who can write the databases.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core.errors import InvalidRequest

KEY_BYTES_MIN: Final = 32
KEY_BYTES_MAX: Final = 4_096
_PURPOSE: Final = b"meterbridge.seal/1\n"


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key. `id` names it without telling it."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> "Key":
        """Return the key of that secret."""
        return cls(hmac.new(secret, b"meterbridge.key-id", hashlib.sha256).hexdigest()[:16], secret)

    def sign(self, text: bytes) -> str:
        """Return the signature, in hex."""
        return hmac.new(self.secret, _PURPOSE + text, hashlib.sha256).hexdigest()

    def signed(self, text: bytes, signature: str) -> bool:
        """Tell whether that is this key's signature of the text."""
        return hmac.compare_digest(self.sign(text), signature)


def read_key(path: Path) -> Key:
    """Read a key; white space around it does not count.

    :raises InvalidRequest: the file is missing, or too short or too long for a key.
    """
    try:
        with path.open("rb") as file:
            secret = file.read(KEY_BYTES_MAX + 1).strip()
    except OSError as error:
        message = f"the signing key {path} cannot be read: {error.strerror}: correct METERBRIDGE_CLOSING__KEY_FILE"
        raise InvalidRequest(message) from error
    if not KEY_BYTES_MIN <= len(secret) <= KEY_BYTES_MAX:
        message = (
            f"the signing key {path} must have {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes: make one with"
            " `openssl rand -hex 32`, and keep the file from others"
        )
        raise InvalidRequest(message)
    return Key.of(secret)
