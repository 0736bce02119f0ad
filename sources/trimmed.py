"""Which part of the streams is gone: trimmed or deleted before somebody wants to read it again."""

from config.settings import RedisSettings
from sources import stream_commands as commands
from sources.resp import RespConnection


def trimmed_until_ms(settings: RedisSettings) -> tuple[int, int]:
    """Return how many entries are gone from all streams, and the time from which on all streams are whole.

    The time is 0 if nothing is gone; for a stream of which nothing is left it is behind its last entry.

    :raises Unreachable: the server is away.
    """
    gone = trimmed_per_stream(settings).values()
    return sum(count for count, _ in gone), max((until_ms for _, until_ms in gone), default=0)


def trimmed_per_stream(settings: RedisSettings) -> dict[str, tuple[int, int]]:
    """Return the same of each stream of which something is gone.

    :raises Unreachable: the server is away.
    """
    connection = RespConnection(settings)
    try:
        replies = connection.call([commands.load_info(name) for name in settings.streams])
    finally:
        connection.close()
    gone: dict[str, tuple[int, int]] = {}
    for name, reply in zip(settings.streams, replies, strict=True):
        info = commands.parse_info(name, reply)
        if info is None or info.entries_added == info.length:
            continue
        until_ms = info.first_entry[0] + 1 if info.first_entry else info.last_generated[0] + 1
        gone[name] = info.entries_added - info.length, until_ms
    return gone
