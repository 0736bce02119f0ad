"""What tests of the service as a process share."""

import json
import subprocess


def address_of(process: "subprocess.Popen[str]") -> str:
    """Return the address that `serve --json` says once it takes connections."""
    assert process.stdout is not None
    told = ""
    while not told.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else "it ended"
        told += line
    return str(json.loads(told)["address"])
