"""Reads HTTP request bodies within limits: fixed length or chunked, plain or compressed.

Raises `BodyError` with the HTTP status to answer; it never holds more than a chunk beyond what it yields.
"""

import gzip
import zlib
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP as HTTP_POLICY
from typing import BinaryIO, Final, Protocol

CHUNK_BYTES: Final = 1 << 16
"""Small enough to stay in the processor's cache and to be allocated again and again without new pages."""
_LINE_BYTES_MAX: Final = 8192


class BodyError(Exception):
    """The body cannot be read; `status` is the HTTP status to answer."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class _Decompressor(Protocol):
    def decompress(self, data: bytes) -> bytes: ...


class _Identity:
    def decompress(self, data: bytes) -> bytes:
        return data


def _decompressor(encoding: str) -> _Decompressor:
    if encoding in ("", "identity"):
        return _Identity()
    if encoding in ("gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32)
    if encoding == "lz4":
        from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]  # noqa: PLC0415

        frame: _Decompressor = LZ4FrameDecompressor()
        return frame
    if encoding == "zstd":
        from backports.zstd import ZstdDecompressor  # noqa: PLC0415

        zstd: _Decompressor = ZstdDecompressor()
        return zstd
    raise BodyError(415, f"Content-Encoding {encoding!r} is not supported: use gzip, deflate, lz4, zstd or none")


def _raw(stream: BinaryIO, headers: Message, bytes_max: int) -> Iterator[bytes]:
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        yield from _chunked(stream, bytes_max)
        return
    text = headers.get("Content-Length", "0")
    if not text.isdigit():
        raise BodyError(400, "Content-Length is not a number")
    left = int(text)
    if left > bytes_max:
        raise BodyError(413, f"the body has {left} bytes, the limit is {bytes_max}: send smaller inserts")
    while left:
        data = stream.read(min(left, CHUNK_BYTES))
        if not data:
            raise BodyError(400, "the connection ended inside the body")
        left -= len(data)
        yield data


def _chunked(stream: BinaryIO, bytes_max: int) -> Iterator[bytes]:
    total = 0
    while True:
        line = stream.readline(_LINE_BYTES_MAX)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise BodyError(400, "a chunk does not begin with its size") from None
        total += size
        if total > bytes_max:
            raise BodyError(413, f"the body has more than {bytes_max} bytes: send smaller inserts")
        if size == 0:
            while stream.readline(_LINE_BYTES_MAX) not in (b"\r\n", b"\n", b""):
                pass
            return
        while size:
            data = stream.read(min(size, CHUNK_BYTES))
            if not data:
                raise BodyError(400, "the connection ended inside a chunk")
            size -= len(data)
            yield data
        stream.readline(_LINE_BYTES_MAX)


def read_body(stream: BinaryIO, headers: Message, bytes_max: int) -> Iterator[bytes]:
    """Yield the decompressed body in pieces, at most `bytes_max` bytes before and after decompression."""
    decompressor = _decompressor(headers.get("Content-Encoding", "").strip().lower())
    total = 0
    for data in _raw(stream, headers, bytes_max):
        try:
            plain = decompressor.decompress(data)
        except (ValueError, RuntimeError, EOFError, OSError, zlib.error, gzip.BadGzipFile) as error:
            raise BodyError(400, f"the body is not valid {headers.get('Content-Encoding')}: {error}") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise BodyError(400, f"the body is not valid zstd: {error}") from error
        total += len(plain)
        if total > bytes_max:
            raise BodyError(413, f"the body has more than {bytes_max} bytes: send smaller inserts")
        if plain:
            yield plain


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the text fields of a multipart form, as the client sends long queries with parameters."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message: Message = BytesParser(policy=HTTP_POLICY).parsebytes(head + body)
    if not message.is_multipart():
        raise BodyError(400, "the form has no parts")
    fields: dict[str, str] = {}
    for part in message.iter_parts():  # type: ignore[attr-defined]
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None:
            raise BodyError(501, "external data are not supported by the embedded server")
        payload = part.get_payload(decode=True)
        fields[str(name)] = payload.decode()
    return fields
