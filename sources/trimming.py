"""Trims the streams behind the books: what is durable in every store, and old enough, leaves Redis."""

from config.settings import RedisSettings
from sources.resp import ReplyError, RespConnection, pack
from sources.stream_commands import refused


def trim(settings: RedisSettings, before_ms: int) -> dict[str, int]:
    """Remove the entries that arrived before a time; return how many, by stream.

    The caller says a time that the flow's committed state has passed (`sinks.ledger.progress.watermark_ms`), never one
    of the clock. Whole nodes of a stream are removed only, so somewhat fewer go than could.

    Guarantee: no entry that arrived at or after `before_ms` goes. Dying in between leaves some streams untrimmed.

    :raises Unreachable: the server is away.
    :raises InvalidRequest: the user may not run XTRIM.
    """
    connection = RespConnection(settings)
    try:
        requests = [pack("XTRIM", name, "MINID", "~", f"{before_ms}-0", "LIMIT", 0) for name in settings.streams]
        replies = connection.call(requests)
    finally:
        connection.close()
    removed: dict[str, int] = {}
    for name, reply in zip(settings.streams, replies, strict=True):
        if isinstance(reply, ReplyError):
            raise refused(name, reply)
        removed[name] = int(reply)
    return removed
