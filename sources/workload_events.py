"""Columns and texts of generated events: whole chunks at a time, so that a load generator outruns the flow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

DEMO_SUBJECTS: Final = (
    "globex",
    "initech",
    "wayne",
    "acme-labs",
    "soylent",
    "cyberdyne",
    "acme",
    "wonka",
    "nakatomi",
    "umbrella",
    "hooli",
    "stark",
    "tyrell",
    "trial-anonymous",
)
"""Subjects of the default configuration, largest first; the order spreads the large ones over the streams."""

ZIPF_EXPONENT: Final = 1.1
MODELS: Final = ("gpt-4-mini", "gpt-4", "embed-3")
REGIONS: Final = ("eu", "us", "apac")
COMPLETION, STORAGE, SEAT = 0, 1, 2

_COMPLETION: Final = (
    '{"specversion":"1.0","id":"%016x","source":"/llm-gateway/%s","type":"llm.completion","subject":"%s","time":"%sZ",'
    '"data":{"model":"%s","region":"%s","input_tokens":%d,"output_tokens":%d}}'
)
_STORAGE: Final = (
    '{"specversion":"1.0","id":"%016x","source":"/object-storage/%s","type":"storage.level","subject":"%s","time":"%sZ",'
    '"data":{"gib":"%d.%06d","volume":"vol-%04d","tier":"standard"}}'
)
_SEAT: Final = (
    '{"specversion":"1.0","id":"%016x","source":"/console/%s","type":"seat.active","subject":"%s","time":"%sZ",'
    '"data":{"user":"user-%05d@%s.example","client":"web"}}'
)

Ints = npt.NDArray[np.int64]
_U64 = np.uint64


@dataclass(frozen=True, slots=True)
class Columns:
    """One chunk of new events, an array element each. Times are Unix microseconds."""

    ids: npt.NDArray[np.uint64]
    kinds: Ints
    tenants: Ints
    models: Ints
    regions: Ints
    times_us: Ints
    first: Ints
    """Input tokens; whole GiB; number of the user."""
    second: Ints
    """Output tokens; millionths of a GiB; unused."""
    third: Ints
    """Number of the volume; unused otherwise."""


def tenant_names(count: int) -> tuple[str, ...]:
    """Return that many subjects, those of the default configuration first."""
    more = (f"tenant-{number:05d}" for number in range(len(DEMO_SUBJECTS), count))
    return (*DEMO_SUBJECTS[:count], *more)


def zipf_bounds(count: int) -> npt.NDArray[np.float64]:
    """Return cumulative shares of tenants of very different size; the last is 1."""
    weights = 1.0 / np.arange(1, count + 1, dtype=np.float64) ** ZIPF_EXPONENT
    bounds: npt.NDArray[np.float64] = np.cumsum(weights) / weights.sum()
    bounds[-1] = 1.0
    return bounds


def mixed(numbers: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Return a well-mixed 64-bit number for each (splitmix64): distinct for distinct inputs of one seed."""
    with np.errstate(over="ignore"):
        value = numbers + _U64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % (1 << 64))
        value = (value ^ (value >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> _U64(27))) * _U64(0x94D049BB133111EB)
        mixed_value: npt.NDArray[np.uint64] = value ^ (value >> _U64(31))
    return mixed_value


def draw(
    random: np.random.Generator,
    ids: npt.NDArray[np.uint64],
    bounds: npt.NDArray[np.float64],
    times_us: Ints,
) -> Columns:
    """Draw the content of new events that happen at those times."""
    count = len(ids)
    kinds = np.searchsorted([0.90, 0.96], random.random(count), side="right")
    tenants = np.searchsorted(bounds, random.random(count), side="right").clip(max=len(bounds) - 1)
    models = np.searchsorted([0.55, 0.80], random.random(count), side="right")
    # A tenant has a home region; every fifth request comes from elsewhere.
    away = random.random(count) < 0.2
    regions = np.where(away, random.integers(0, len(REGIONS), count), tenants % len(REGIONS))
    input_tokens = random.lognormal(6.3, 1.2, count).astype(np.int64).clip(1, 128_000)
    output_tokens = random.lognormal(5.0, 0.9, count).astype(np.int64).clip(1, 16_000)
    output_tokens[models == 2] = 0
    levels = random.lognormal(3.0, 0.5, count) * (1 + len(bounds) / (1 + tenants))
    users = (random.random(count) ** 2 * (2_000 / (1 + tenants) + 3)).astype(np.int64)
    first = np.choose(kinds, [input_tokens, levels.astype(np.int64), users])
    second = np.choose(kinds, [output_tokens, random.integers(0, 1_000_000, count), np.zeros(count, np.int64)])
    return Columns(ids, kinds, tenants, models, regions, times_us, first, second, random.integers(1, 20, count))


def texts(columns: Columns, names: Sequence[str]) -> list[bytes]:
    """Return the events as compact JSON of some 200 to 260 bytes."""
    times = np.datetime_as_string(columns.times_us.astype("datetime64[us]")).tolist()
    rows = zip(
        columns.ids.tolist(),
        columns.kinds.tolist(),
        [names[tenant] for tenant in columns.tenants.tolist()],
        times,
        [MODELS[model] for model in columns.models.tolist()],
        [REGIONS[region] for region in columns.regions.tolist()],
        columns.first.tolist(),
        columns.second.tolist(),
        columns.third.tolist(),
        strict=True,
    )
    return [_text(*row).encode() for row in rows]


def _text(
    identity: int, kind: int, name: str, time: str, model: str, region: str, first: int, second: int, third: int
) -> str:
    if kind == COMPLETION:
        return _COMPLETION % (identity, region, name, time, model, region, first, second)
    if kind == STORAGE:
        return _STORAGE % (identity, region, name, time, first, second, third)
    return _SEAT % (identity, region, name, time, first, name)


def void(identity: int, subject: str, time: str, original: bytes) -> bytes:
    """Return the event that takes the original back."""
    head = (
        f'{{"specversion":"1.0","id":"void-{identity:016x}","source":"/corrections","type":"meterbridge.void",'
        f'"subject":"{subject}","time":"{time}Z","data":'
    )
    return head.encode() + original + b"}"


def time_text(time_us: int) -> str:
    """Return an RFC 3339 time with microseconds, without its final Z."""
    return str(np.datetime_as_string(np.datetime64(time_us, "us")))


def totals_of(columns: Columns, counted: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return what the counted events add up to: requests, input and output tokens."""
    chosen = counted & (columns.kinds == COMPLETION)
    return {
        "requests": int(chosen.sum()),
        "input_tokens": int(columns.first[chosen].sum()),
        "output_tokens": int(columns.second[chosen].sum()),
    }
