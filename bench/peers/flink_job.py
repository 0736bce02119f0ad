"""The engine job in Flink SQL: a local cluster with two slots in one virtual machine, the job in flink.sql.

The libraries come from PyPI without PyFlink, whose dependencies the job does not need: Python only hands statements to
the Java table API, over the gateway that Flink ships, on the loopback interface.
"""

import contextlib
import importlib.util
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.peers.answer import CORES, Answer, Sums, directories, session_cpu_s

STATEMENTS: Final = Path(__file__).with_name("flink.sql")
SETTINGS: Final = {
    "execution.target": "local",
    "parallelism.default": str(CORES),
    "pipeline.object-reuse": "true",
    "state.backend.type": "hashmap",
    "table.local-time-zone": "UTC",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": "20000",
}
GATEWAY: Final = "org.apache.flink.api.python.shaded.py4j.GatewayServer"
OPENED: Final = ("lang", "net", "io", "nio", "text", "time", "util", "util.concurrent", "util.concurrent.atomic")


def statements(directory: Path) -> list[str]:
    """Return the statements of the job over the files of a directory; the last is the query."""
    kept = [line for line in STATEMENTS.read_text(encoding="utf-8").splitlines() if not line.startswith("--")]
    text = "\n".join(kept).replace("${input}", str(directory))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


@contextlib.contextmanager
def virtual_machine() -> Iterator[tuple[Any, str]]:
    """Start Java with Flink; hand out its classes and Flink's version; stop it at the end."""
    from py4j.java_gateway import GatewayParameters, JavaGateway  # noqa: PLC0415 - statements() needs none of it

    found = importlib.util.find_spec("pyflink")
    if found is None or not found.submodule_search_locations:
        message = "apache-flink-libraries is not installed here; run make bench-peers"
        raise SystemExit(message)
    home = Path(found.submodule_search_locations[0])
    gateway_jar = next((home / "opt").glob("flink-python-*.jar"))
    opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
    command = ["java", "-Xmx4g", *opened, "-cp", f"{home}/lib/*:{gateway_jar}", GATEWAY, "--die-on-broken-pipe", "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError
        port = int(process.stdout.readline())
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auto_convert=True))
        yield gateway.jvm, gateway_jar.stem.removeprefix("flink-python-")
        gateway.shutdown()
    finally:
        process.terminate()
        process.wait(timeout=30)


def run(java: Any, version: str, directory: Path) -> Answer:
    """Run the job over the events of a directory."""
    settings = java.java.util.HashMap()
    for name, value in SETTINGS.items():
        settings.put(name, value)
    configuration = java.org.apache.flink.configuration.Configuration.fromMap(settings)
    api = java.org.apache.flink.table.api
    mode = api.EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build()
    tables = api.TableEnvironment.create(mode)
    *definitions, query = statements(directory)
    began_s, began_cpu_s = time.perf_counter(), session_cpu_s()
    for definition in definitions:
        tables.executeSql(definition)
    rows, last = tables.executeSql(query).collect(), None
    while rows.hasNext():
        last = rows.next()
    seconds, cpu_s = time.perf_counter() - began_s, session_cpu_s() - began_cpu_s
    if last is None:
        message = "Flink returned no row"
        raise SystemExit(message)
    sums = Sums(*(last.getField(place) for place in range(3)))
    return Answer(sums, seconds, cpu_s, version)


def main() -> None:
    """Run over the warm-up, then over the input."""
    with virtual_machine() as (java, version):
        for directory in directories():
            answer = run(java, version, directory)
    print(answer.line())


if __name__ == "__main__":
    main()
