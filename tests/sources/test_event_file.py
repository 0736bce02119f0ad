"""Lines of files: whatever their compression, in bounded batches, and from where an earlier reader ended."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import InvalidRequest
from sources import event_file
from sources.event_file import read_lines

TEXT = b"\n".join(b'{"n":%d}' % number if number % 3 else b"  " for number in range(1, 40))


def written(directory: Path, suffix: str) -> Path:
    path = directory / f"events.ndjson{suffix}"
    if suffix == ".gz":
        path.write_bytes(gzip.compress(TEXT))
    elif suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(TEXT)
    else:
        path.write_bytes(TEXT)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_are_the_same_in_any_compression(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "BATCH_LINES", 4)
    path = written(tmp_path, suffix)

    batches = list(read_lines(path))

    assert [len(batch.texts) for batch in batches] == [4] * 6 + [2]
    numbers = [number for batch in batches for number in batch.numbers]
    assert numbers == [number for number in range(1, 40) if number % 3]
    assert [text for batch in batches for text in batch.texts] == [b'{"n":%d}' % number for number in numbers]
    assert [number for batch in read_lines(path, after=20) for number in batch.numbers] == [
        number for number in numbers if number > 20
    ]


def test_batches_are_bounded_in_bytes_and_lines_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "BATCH_BYTES", 30)
    assert all(batch.size_bytes <= 30 for batch in read_lines(written(tmp_path, "")))

    monkeypatch.setattr(event_file, "LINE_BYTES_MAX", 100)
    path = tmp_path / "long"
    path.write_bytes(b"x" * 200)
    with pytest.raises(InvalidRequest, match="longer than"):
        list(read_lines(path))


def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    path = written(tmp_path, ".gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InvalidRequest, match="damaged or cut off"):
        list(read_lines(path))
    with pytest.raises(InvalidRequest, match="cannot read"):
        list(read_lines(tmp_path / "nothing"))
