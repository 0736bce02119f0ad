"""The embedded ClickHouse as a process that tests start, kill and start again."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S_MAX = 60.0


class ClickHouseProcess:
    """One server process on one directory. The port stays the same over restarts."""

    def __init__(self, directory: Path, memory_bytes_max: int = 2 << 30) -> None:
        self.directory = directory
        self.port = 0
        self._memory_bytes_max = memory_bytes_max
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        port_file = self.directory.with_suffix(".port")
        port_file.unlink(missing_ok=True)
        options = ["--path", str(self.directory), "--port", str(self.port), "--port-file", str(port_file)]
        memory = ["--memory-bytes-max", str(self._memory_bytes_max)]
        log = self.directory.with_suffix(".log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stack.chdb_server", *options, *memory],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + START_S_MAX
        while not port_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                message = f"the server did not start: {log.read_text()}"
                raise AssertionError(message)
            time.sleep(0.02)
        self.port = int(port_file.read_text())

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)
