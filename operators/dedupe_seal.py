"""Sealing and merging of the id log: from a closed tail file to a segment, from many segments to one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from operators import dedupe_segment
from operators.dedupe_disk import Disk
from operators.dedupe_manifest import SegmentEntry
from operators.dedupe_run import concatenate, sorted_newest
from operators.dedupe_segment import Segment
from operators.dedupe_tail import TailFile

MERGE_WIDTH: Final = 4
"""Neighbouring segments of one size class that become one."""
MERGE_FACTOR_MAX: Final = 16
"""A merged segment holds at most this many times the records of a sealed tail file."""


def write_segment(disk: Disk, directory: Path, log_id: bytes, file: TailFile) -> SegmentEntry:
    """Write the segment of a closed tail file and return its manifest entry."""
    return dedupe_segment.write(disk, directory, log_id, file.first, file.end, file.runs.merged())


def choose_merge(segments: Sequence[Segment], seal_records: int) -> list[Segment]:
    """Return the newest neighbouring segments worth merging, oldest first; none if there are not enough."""
    size = 1
    while size < MERGE_FACTOR_MAX:
        limit = size * MERGE_WIDTH * seal_records
        chosen: list[Segment] = []
        for segment in reversed(segments):
            if len(segment) * MERGE_WIDTH > limit or len(chosen) == MERGE_WIDTH:
                break
            chosen.insert(0, segment)
        if len(chosen) == MERGE_WIDTH:
            return chosen
        size *= MERGE_WIDTH
    return []


def merge(
    disk: Disk, directory: Path, log_id: bytes, segments: Sequence[Segment], expired_before: int
) -> SegmentEntry | None:
    """Write one segment for several neighbours, without expired records; None if nothing is left of them.

    Every block read is checked first, so damage is found here and not copied under a new checksum.
    """
    for segment in segments:
        segment.check_all()
    records = concatenate([segment.records for segment in segments])
    records = sorted_newest(records)
    records = records.take(records.minute >= expired_before)
    if not len(records):
        return None
    first, end = segments[0].entry.first, segments[-1].entry.end
    return dedupe_segment.write(disk, directory, log_id, first, end, records)
