"""Sealing and merging of the id log: from a closed tail file to a segment, from many segments to one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from operators.dedupe_disk import Disk
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_run import Records, concatenate, sorted_newest
from operators.dedupe_segment import Segment
from operators.dedupe_segment_writer import SegmentWriter
from operators.dedupe_tail import TailFile

MERGE_WIDTH: Final = 4
"""Neighbouring segments of one size class that become one."""
MERGE_RECORDS_MAX: Final = 1 << 24
"""Segments are not merged beyond about this many records (400 MB): more of them would save little."""
_CHUNK_BLOCKS: Final = 256


def seal(disk: Disk, directory: Path, log_id: bytes, file: TailFile) -> SegmentEntry | None:
    """Write the segment of a closed tail file and return its manifest entry."""
    records = file.index.merged()
    minutes = int(records.minute.min(initial=0xFFFF_FFFF)), int(records.minute.max(initial=0))
    writer = SegmentWriter(disk, directory, log_id, file.first, file.end, len(records), minutes)
    writer.add(records)
    return writer.finish()


def choose_merge(segments: Sequence[Segment], smallest: int) -> list[Segment]:
    """Return the newest neighbouring segments of one size class, oldest first; none if there are too few.

    :param smallest: records below twice which a segment is of the lowest class; classes widen by MERGE_WIDTH.
    """
    limit = 2 * smallest
    end = len(segments)
    while end >= MERGE_WIDTH and limit * MERGE_WIDTH <= 2 * MERGE_RECORDS_MAX:
        chosen = list(segments[end - MERGE_WIDTH : end])
        if all(len(segment) <= limit for segment in chosen):
            return chosen
        while end and len(segments[end - 1]) <= limit:  # too few of this class: look behind them
            end -= 1
        limit *= MERGE_WIDTH
    return []


def merge(
    disk: Disk, directory: Path, log_id: bytes, segments: Sequence[Segment], expired_before: int
) -> SegmentEntry | None:
    """Write one segment for several neighbours, without expired records; None if nothing is left of them.

    Works through ranges of the digest, so memory stays small. Every block read is checked first, so damage is
    found here and not copied under a new checksum.
    """
    count_max = sum(len(segment) for segment in segments)
    first, end = segments[0].entry.first, segments[-1].entry.end
    minutes = min(segment.minute_min for segment in segments), max(segment.minute_max for segment in segments)
    writer = SegmentWriter(disk, directory, log_id, first, end, count_max, minutes)
    for part in _chunks(segments):
        records = sorted_newest(part)
        writer.add(records.take(records.minute >= expired_before))
    return writer.finish()


def _chunks(segments: Sequence[Segment]) -> Iterator[Records]:
    """Yield the records of all segments by ranges of `hi`, within a range the older segment's first."""
    starts = np.sort(np.concatenate([segment.starts for segment in segments]))
    begins = [0] * len(segments)
    for bound in [*np.unique(starts[_CHUNK_BLOCKS::_CHUNK_BLOCKS]), None]:
        ends = [len(segment) if bound is None else segment.lower_bound(bound) for segment in segments]
        parts = zip(segments, begins, ends, strict=True)
        yield concatenate([segment.slice(begin, end) for segment, begin, end in parts])
        begins = ends
