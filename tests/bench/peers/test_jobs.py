"""Every peer's definition parses, its versions are pinned, and where its environment stands its sums are right."""

import ast
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from bench.peers import flink_job, install, run
from bench.peers.contestants import OWN, PEERS, ROOT, Contestant, pinned

PACKAGES = {"flink": "apache-flink-libraries", "spark": "pyspark", "pathway": "pathway"}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_job_parses_and_its_packages_are_pinned_with_hashes(peer: Contestant) -> None:
    program = ROOT / f"{peer.job.replace('.', '/')}.py"
    names = {node.name for node in ast.walk(ast.parse(program.read_text())) if isinstance(node, ast.FunctionDef)}
    assert {"run", "main"} <= names
    text = peer.requirements().read_text()
    assert PACKAGES[peer.environment or ""] in pinned(text)
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) >= len(pinned(text))
    assert all("--hash=sha256:" in block for block in blocks)


def test_jobs_for_other_environments_import_only_what_is_there() -> None:
    allowed = set(sys.stdlib_module_names) | {"bench", "pyspark", "pathway", "py4j"}
    for peer in PEERS:
        tree = ast.parse((ROOT / f"{peer.job.replace('.', '/')}.py").read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert {str(node.module).split(".")[0] for node in imports} <= allowed
        assert {node.module for node in imports if str(node.module).startswith("bench")} == {"bench.peers.answer"}


def test_flink_gets_one_statement_after_the_other_with_the_path_filled_in() -> None:
    found = flink_job.statements(Path("/some/where"))
    assert [statement.split()[0] for statement in found] == ["CREATE"] * 4 + ["SELECT"]
    assert "'path' = 'file:///some/where'" in found[0]
    for statement in found:
        assert "${" not in statement
        assert statement.count("(") == statement.count(")")
        assert statement.count("'") % 2 == statement.count("`") % 2 == 0


def test_every_peer_has_a_target_and_its_environment_is_ignored_by_git() -> None:
    from bench.report import PEER_TARGETS  # noqa: PLC0415

    assert {case for _, case, _, _ in PEER_TARGETS} == {f"{OWN.name} against {peer.name}" for peer in PEERS}
    assert ".venv-peers-*/" in (ROOT / ".gitignore").read_text().splitlines()
    assert all(peer.venv().match(".venv-peers-*") for peer in PEERS)


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_computes_the_sums_of_the_input(peer: Contestant) -> None:
    if not install.standing(peer) or shutil.which("java") is None:
        pytest.skip("made by make bench-peers")
    result = run.run((peer,), events=3_000, rounds=1, deadline_s=time.monotonic() + 280)
    assert result["versions"][peer.name] == pinned(peer.requirements().read_text())[PACKAGES[peer.environment or ""]]
