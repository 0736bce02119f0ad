"""The connection: replies of all kinds, limits, silence, stops, TLS."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr

from config.settings import RedisSettings
from core.errors import InvalidRequest, StopRequested, Unreachable
from core.redis_client import address, connect, guarded, server_time_ms
from sources.resp import ReplyError, ReplyTooLarge, RespConnection, pack

Serve = Callable[[socket.socket], None]


@pytest.fixture
def listen() -> Iterator[Callable[[Serve], str]]:
    """Start a server on a free port that treats each connection as told; return its address."""
    listeners: list[socket.socket] = []

    def start(serve: Serve) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(accepted,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def answering(reply: bytes) -> Serve:
    def serve(accepted: socket.socket) -> None:
        while accepted.recv(4096):
            accepted.sendall(reply)

    return serve


def silent(accepted: socket.socket) -> None:
    accepted.recv(4096)
    time.sleep(30)


def test_replies_come_in_order_and_errors_are_values(redis_url: str) -> None:
    connection = RespConnection(RedisSettings(url=redis_url))
    replies = connection.call(
        [pack("SET", "a", b"\x00\xff\r\n"), pack("GET", "a"), pack("INCR", "a"), pack("GET", "b"), pack("TIME")]
    )
    assert replies[:2] == [b"OK", b"\x00\xff\r\n"]
    assert isinstance(replies[2], ReplyError)
    assert replies[3] is None
    assert len(replies[4]) == 2
    connection.close()


def test_the_database_of_the_url_is_used(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("here", b"0")
    connection = RespConnection(RedisSettings(url=redis_url.replace("/0", "/3")))
    assert connection.call([pack("EXISTS", "here")]) == [0]


def test_a_reply_beyond_the_limit_is_not_taken_in(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("big", b"x" * 5_000_000)
    connection = RespConnection(RedisSettings(url=redis_url))
    with pytest.raises(ReplyTooLarge):
        connection.call([pack("GET", "big")], reply_bytes_max=1_000_000)
    with pytest.raises(Unreachable):
        connection.call([pack("PING")])


@pytest.mark.parametrize("reply", [b"-LOADING the dataset\r\n", b"-READONLY a replica\r\n", b"-OOM no memory\r\n"])
def test_a_server_that_cannot_serve_just_now_is_unreachable(listen: Callable[[Serve], str], reply: bytes) -> None:
    where = listen(answering(reply))
    with pytest.raises(Unreachable, match=where) as failure:
        RespConnection(RedisSettings(url=f"redis://{where}/0")).call([pack("PING")])
    assert reply[1:8].decode() in str(failure.value)


@pytest.mark.parametrize("reply", [b"nonsense\r\n", b"$5\r\nab"])
def test_a_server_that_speaks_something_else_is_unreachable(listen: Callable[[Serve], str], reply: bytes) -> None:
    def serve(accepted: socket.socket) -> None:
        accepted.recv(4096)
        accepted.sendall(reply)
        accepted.close()

    where = listen(serve)
    with pytest.raises(Unreachable, match=where):
        RespConnection(RedisSettings(url=f"redis://{where}/0")).call([pack("PING")])


def test_silence_ends_with_the_timeout(listen: Callable[[Serve], str]) -> None:
    where = listen(silent)
    began_s = time.monotonic()
    with pytest.raises(Unreachable, match=r"no reply within 0\.3 s"):
        RespConnection(RedisSettings(url=f"redis://{where}/0", socket_timeout_s=0.3)).call([pack("PING")])
    assert time.monotonic() - began_s < 2


def test_a_stop_ends_the_wait(listen: Callable[[Serve], str]) -> None:
    where, stop = listen(silent), threading.Event()
    threading.Timer(0.2, stop.set).start()
    began_s = time.monotonic()
    with pytest.raises(StopRequested):
        RespConnection(RedisSettings(url=f"redis://{where}/0"), stop.is_set).call([pack("PING")])
    assert time.monotonic() - began_s < 2


# --- the ordinary client and its errors ------------------------------------------------------------------


def test_the_address_shows_no_secret() -> None:
    settings = RedisSettings(url="redis://user:hush@db.example:7000/2")
    assert address(settings) == "db.example:7000"
    message = "connecting with hush failed"
    with pytest.raises(Unreachable) as failure, guarded(settings):
        raise ConnectionError(message)
    assert "hush" not in str(failure.value)
    assert "db.example:7000" in str(failure.value)
    assert "METERBRIDGE_REDIS__URL" in str(failure.value)


def test_the_client_reads_the_servers_clock(redis_url: str) -> None:
    settings = RedisSettings(url=redis_url)
    with connect(settings) as client:
        assert abs(server_time_ms(client, settings) - time.time() * 1000) < 5_000
        assert client.echo("x") == b"x"


def test_the_client_says_where_no_server_is() -> None:
    settings = RedisSettings(url="redis://127.0.0.1:1/0", password=SecretStr("hush"))
    with connect(settings) as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 ") as failure:
        server_time_ms(client, settings)
    assert "hush" not in str(failure.value)


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="METERBRIDGE_REDIS__URL"):
        connect(RedisSettings().model_copy(update={"url": "http://127.0.0.1:1"}))


# --- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of `localhost`, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "cert.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([openssl, *options.split(), "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    return file, key


@pytest.fixture
def tls_port(redis_url: str, certificate: tuple[Path, Path]) -> Iterator[int]:
    """Port of a TLS front of the test's Valkey that demands a certificate of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, certificate))
    context.load_verify_locations(str(certificate[0]))
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    target = urlsplit(redis_url)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            sink.close()

    def accept() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                front = context.wrap_socket(raw, server_side=True)
            except OSError:
                continue
            back = socket.create_connection((target.hostname or "", target.port or 0))
            threading.Thread(target=pump, args=(front, back), daemon=True).start()
            threading.Thread(target=pump, args=(back, front), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_tls_is_spoken_and_checked(tls_port: int, certificate: tuple[Path, Path]) -> None:
    file, key = certificate
    files = {"tls_ca_file": file, "tls_cert_file": file, "tls_key_file": key}
    settings = RedisSettings(url=f"redis://localhost:{tls_port}/0", tls=True, **files)
    connection = RespConnection(settings)
    payload = b"y" * 300_000
    assert connection.call([pack("SET", "k", payload), pack("GET", "k")]) == [b"OK", payload]
    connection.close()
    with connect(settings) as client:
        assert client.get("k") == payload
    by_scheme = RedisSettings(url=f"rediss://localhost:{tls_port}/0", **files)
    RespConnection(by_scheme).close()


def test_a_certificate_of_another_name_or_issuer_is_refused(tls_port: int, certificate: tuple[Path, Path]) -> None:
    file, key = certificate
    files = {"tls_ca_file": file, "tls_cert_file": file, "tls_key_file": key}
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        RespConnection(RedisSettings(url=f"rediss://127.0.0.1:{tls_port}/0", **files))
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        RespConnection(RedisSettings(url=f"rediss://localhost:{tls_port}/0"))


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    settings = RedisSettings(url="rediss://localhost:1/0", tls_ca_file=tmp_path / "absent.pem")
    with pytest.raises(InvalidRequest, match="TLS_CA_FILE"):
        connect(settings)
    with pytest.raises(InvalidRequest, match="TLS_CA_FILE"):
        RespConnection(settings)
