"""Clients of the event streams' server: made from settings, never at import time, errors with an address."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from config.settings import RedisSettings
from core.errors import InvalidRequest, Unreachable

URL_SETTING: Final = "METERBRIDGE_REDIS__URL"

RETRYABLE_REPLIES: Final = (
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "TRYAGAIN",
    "BUSY ",
    "MISCONF",
    "OOM",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "UNKILLABLE",
    "max number of clients reached",
    "ERR max number of clients reached",
)
"""How replies begin that a later attempt may not get: the server starts, fails over, or is full."""


def address(settings: RedisSettings) -> str:
    """Return where the server is, without user name and password."""
    parts = urlsplit(settings.url)
    if parts.scheme == "unix":
        return f"unix:{parts.path}"
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def unreachable(settings: RedisSettings, cause: object) -> Unreachable:
    """Return the error for a server that does not answer, naming address, cause and setting."""
    text = str(cause) or type(cause).__name__
    for secret in _secrets(settings):
        text = text.replace(secret, "***")
    return Unreachable(
        f"Redis at {address(settings)} did not answer: {text}. "
        f"Check that it runs there, or set {URL_SETTING} to where it is."
    )


def login_refused(cause: object) -> InvalidRequest:
    """Return the error for a login that the server refuses, naming the settings."""
    return InvalidRequest(
        f"Redis refused the login: {cause}. "
        "Check METERBRIDGE_REDIS__USERNAME, __PASSWORD and the database number in __URL."
    )


def connection_options(settings: RedisSettings) -> dict[str, Any]:
    """Return the options of the settings' URL (host, port or path, db, username, password), settings first.

    :raises InvalidRequest: the URL cannot be read.
    """
    try:
        options: dict[str, Any] = dict(parse_url(settings.url))  # type: ignore[no-untyped-call]
    except ValueError as error:
        message = f"{URL_SETTING} is not a Redis URL ({error}): write redis://host:port/0 or rediss://host:port/0"
        raise InvalidRequest(message) from None
    options.pop("connection_class", None)
    if settings.username is not None:
        options["username"] = settings.username
    if settings.password is not None:
        options["password"] = settings.password.get_secret_value()
    return options


def uses_tls(settings: RedisSettings) -> bool:
    """Tell whether the connection is encrypted: by the setting or by a `rediss://` URL."""
    return settings.tls or urlsplit(settings.url).scheme == "rediss"


def tls_context(settings: RedisSettings) -> ssl.SSLContext:
    """Return a context that checks the server's certificate and name, with our own certificate if one is set.

    :raises InvalidRequest: a certificate file is missing or cannot be read.
    """
    try:
        context = ssl.create_default_context(
            cafile=str(settings.tls_ca_file) if settings.tls_ca_file is not None else None
        )
        if settings.tls_cert_file is not None:
            key_file = str(settings.tls_key_file) if settings.tls_key_file is not None else None
            context.load_cert_chain(str(settings.tls_cert_file), key_file)
    except (OSError, ssl.SSLError) as error:
        message = (
            f"a TLS file of the Redis settings cannot be used ({error}): "
            "check METERBRIDGE_REDIS__TLS_CA_FILE, __TLS_CERT_FILE and __TLS_KEY_FILE"
        )
        raise InvalidRequest(message) from error
    return context


def connect(settings: RedisSettings) -> redis.Redis:
    """Return a client; it connects with its first command, and closes as a context manager.

    Replies are bytes. Nothing is repeated in silence: a command that may have been executed raises. The connection
    sets no name and sends no command of its own but the login, since its user may be allowed little else.

    :raises InvalidRequest: the URL or a TLS file cannot be used.
    """
    options = connection_options(settings)
    if uses_tls(settings):
        tls_context(settings)  # a missing file is found here, with a message that names the setting
        options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        for name, path in (
            ("ssl_ca_certs", settings.tls_ca_file),
            ("ssl_certfile", settings.tls_cert_file),
            ("ssl_keyfile", settings.tls_key_file),
        ):
            if path is not None:
                options[name] = str(path)
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
    options |= {
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.socket_timeout_s,
        "decode_responses": False,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    return redis.Redis(**options)


@contextmanager
def guarded(settings: RedisSettings) -> Iterator[None]:
    """Turn errors of the block into ours.

    :raises Unreachable: the server does not answer, or cannot serve just now.
    :raises InvalidRequest: it refuses the login, or its user may not run a command.
    """
    try:
        yield
    except redis.AuthenticationError as error:
        raise login_refused(error) from error
    except NoPermissionError as error:
        message = (
            f"Redis at {address(settings)} refused a command: {error}. "
            "Allow it to the user, or set METERBRIDGE_REDIS__USERNAME and __PASSWORD to another"
        )
        raise InvalidRequest(message) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise unreachable(settings, error) from error
    except redis.ResponseError as error:
        if str(error).startswith(RETRYABLE_REPLIES):
            raise unreachable(settings, error) from error
        raise


def server_time_ms(client: redis.Redis, settings: RedisSettings) -> int:
    """Return the server's clock, Unix time in milliseconds.

    :raises Unreachable: the server does not answer.
    """
    with guarded(settings):
        seconds, microseconds = client.time()
        return seconds * 1000 + microseconds // 1000


def _secrets(settings: RedisSettings) -> list[str]:
    url_password = urlsplit(settings.url).password
    own = settings.password.get_secret_value() if settings.password is not None else ""
    return [secret for secret in (url_password, own) if secret]
