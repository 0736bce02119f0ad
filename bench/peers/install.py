"""Makes the peers' environments: `python -m bench.peers.install`. Each is made again only when its list changed."""

import hashlib
import shutil
import subprocess
import sys
from typing import Final

from bench.peers.contestants import PEERS, Contestant

INSTALL_S_MAX: Final = 900


def main() -> None:
    """Install what is missing.

    :raises SystemExit: there is no Java, or a package cannot be had.
    """
    if shutil.which("java") is None:
        message = "Spark and Flink need Java 17 or later and none is on PATH: apt-get install default-jre-headless"
        raise SystemExit(message)
    for peer in PEERS:
        if not standing(peer):
            sys.stderr.write(f"Installing {peer.name} into {peer.venv().name} ...\n")
            install(peer)


def standing(peer: Contestant) -> bool:
    """Return whether the environment was made from the present list."""
    stamp = peer.venv() / ".installed"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == digest(peer)


def digest(peer: Contestant) -> str:
    """Return what identifies the list of packages."""
    return hashlib.sha256(peer.requirements().read_bytes()).hexdigest()


def install(peer: Contestant) -> None:
    """Make the environment; its stamp comes last, so that a broken one is made again."""
    python = peer.venv() / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(peer.venv())],
        [*pip, "-r", str(peer.requirements())],
    ):
        done = subprocess.run(command, timeout=INSTALL_S_MAX, check=False)
        if done.returncode:
            message = f"{peer.name} could not be installed; see above"
            raise SystemExit(message)
    (peer.venv() / ".installed").write_text(digest(peer), encoding="utf-8")


if __name__ == "__main__":
    main()
