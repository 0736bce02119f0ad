"""The commands the reader sends, packed, and what their replies mean."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from core.errors import InvalidRequest, InvariantViolation
from sources.entries import parse_id
from sources.resp import ReplyError, pack
from sources.stream_state import Id, StreamInfo

LOADING_PREFIX: Final = "meterbridge:loading:"
"""While `<prefix><stream>` exists, history is being loaded and the clock does not move the stream's watermark."""

# XSETID refuses an id below the stream's top entry only, so the script itself must not lower the last id.
_CLAIM: Final = """
local next = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)
if #next > 0 then return {'entry', next[1][1], 0} end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local last = '0-0'
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'loading', last, 0} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local claim = math.max(now, tonumber(ARGV[2]))
if tonumber(string.match(last, '^%d+')) >= claim then return {'ahead', last, now} end
local id = string.format('%.0f', claim) .. '-0'
{fence}
return {'claimed', id, now}
"""
_FENCES: Final = {
    "xsetid": "redis.call('XSETID', KEYS[1], id)",
    "tick": (
        "if claim > now then redis.call('XADD', KEYS[1], id, 'tick', string.format('%.0f', now)) "
        "else id = redis.call('XADD', KEYS[1], '*', 'tick', string.format('%.0f', now)) end"
    ),
}

_REFENCE: Final = """
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local last = '0-0'
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
if tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[1]) then return 0 end
{fence}
return 1
"""
_REFENCES: Final = {
    "xsetid": "redis.call('XSETID', KEYS[1], ARGV[1] .. '-0')",
    "tick": "redis.call('XADD', KEYS[1], ARGV[1] .. '-0', 'tick', ARGV[1])",
}

COMMANDS_NEEDED: Final = ("XRANGE", "XINFO", "XGROUP", "EVAL", "TIME", "EXISTS", "MULTI", "EXEC", "XSETID")
"""What the reader's user has to be allowed; with `fence=tick` XADD instead of XSETID."""

Verdict = Literal["entry", "loading", "ahead", "claimed"]


@dataclass(frozen=True, slots=True)
class Claim:
    """Outcome of an idle claim: every entry with ms below `watermark_ms` was read, when nothing was held back.

    `entry`: something arrived; it is the next to read. `ahead`: the stream's last id is not below the server's
    clock. `loading`: history is being loaded. `claimed`: no id below will be given any more.
    """

    verdict: Verdict
    watermark_ms: int
    server_ms: int
    """The server's clock where it was asked, else 0."""


def load_range(stream: str, after: Id, end: bytes, count: int, *, inclusive: bool) -> bytes:
    """Return the command that reads `count` entries after an id; inclusive: beginning with that very entry."""
    start = b"%s%d-%d" % (b"" if inclusive else b"(", *after)
    return pack("XRANGE", stream, start, end, "COUNT", count)


def load_info(stream: str) -> bytes:
    """Return the command that asks for the stream's counts and ids."""
    return pack("XINFO", "STREAM", stream)


def create(stream: str) -> list[bytes]:
    """Return the commands that create an empty stream with no entry ever added."""
    group = "meterbridge-create"
    return [pack("XGROUP", "CREATE", stream, group, "$", "MKSTREAM"), pack("XGROUP", "DESTROY", stream, group)]


def claim(stream: str, read: Id, at_least_ms: int, fence: str) -> bytes:
    """Return the script call that claims the server's time, or an earlier claim if that is higher."""
    script = _CLAIM.replace("{fence}", _FENCES[fence])
    return pack("EVAL", script, 2, stream, LOADING_PREFIX + stream, f"{read[0]}-{read[1]}", at_least_ms)


def restore_fence(stream: str, fence_ms: int, fence: str) -> bytes:
    """Return the script call that sets an earlier claim again if the server has lost it; its reply is 1 then."""
    return pack("EVAL", _REFENCE.replace("{fence}", _REFENCES[fence]), 1, stream, fence_ms)


def parse_claim(stream: str, reply: Any) -> Claim:
    """Return what the claim's reply says.

    :raises InvalidRequest: the server's user may not do it.
    """
    if isinstance(reply, Exception):
        raise refused(stream, reply)
    verdict, entry_id, server_ms = reply
    name: Verdict = verdict.decode("ascii")
    return Claim(name, parse_id(entry_id)[0], server_ms)


def parse_info(stream: str, reply: Any) -> StreamInfo | None:
    """Return the stream's counts and ids; None if it does not exist.

    :raises InvalidRequest: the key is no stream, or the server is too old.
    """
    if isinstance(reply, Exception):
        if "no such key" in str(reply):
            return None
        raise refused(stream, reply)
    values = dict(zip(reply[::2], reply[1::2], strict=True))
    if b"entries-added" not in values:
        message = f"the server of stream {stream} is too old to count lost entries: use Redis 7 or Valkey"
        raise InvalidRequest(message)
    first, last = values[b"first-entry"], values[b"last-entry"]
    return StreamInfo(
        length=values[b"length"],
        entries_added=values[b"entries-added"],
        last_generated=parse_id(values[b"last-generated-id"]),
        first_entry=parse_id(first[0]) if first else None,
        last_entry=parse_id(last[0]) if last else None,
    )


def refused(stream: str, reply: Exception) -> Exception:
    """Return the error for a command the server refused for good."""
    text = str(reply)
    if text.startswith("NOPERM") or "no permission" in text.lower() or "can't run this command" in text.lower():
        what = "its user may not run a command that is needed"
        way_out = (
            f"Allow it {', '.join(COMMANDS_NEEDED)}; without XSETID allow XADD and set METERBRIDGE_REDIS__FENCE=tick."
        )
        return InvalidRequest(f"Redis refused to serve stream {stream}, {what}: {text}. {way_out}")
    if text.startswith("WRONGTYPE"):
        return InvalidRequest(
            f"the Redis key {stream} is not a stream: {text}. Name another in METERBRIDGE_REDIS__STREAMS."
        )
    if text.startswith(("MOVED ", "ASK ", "CROSSSLOT")):
        return InvalidRequest(
            f"{stream} is not on this server, which is a node of a Redis Cluster: {text}. A deployment reads streams of"
            " one node: keep them together by a hash tag, such as {usage}:0, and name that node in"
            " METERBRIDGE_REDIS__URL."
        )
    if isinstance(reply, ReplyError):
        return InvalidRequest(f"Redis refused to serve stream {stream}: {text}")
    return InvariantViolation(f"unexpected reply for stream {stream}: {text}")
