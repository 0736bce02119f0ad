"""The runbook has one entry for each alert and each ERROR line, and none for what does not exist."""

import ast
import re
from pathlib import Path

import pytest

from cli.main import COMMANDS
from tests.deploy.test_alert_rules import ALERTS, ROOT

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ENTRIES = re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)
LOUD = {"error", "critical", "exception", "fatal"}


def _events(path: Path) -> list[str]:
    """Return the events that a file logs at ERROR or above; a name that is no literal is given as its source."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        is_log = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOUD
        if is_log and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            logger = ast.unparse(node.func.value)
            if re.search(r"(^|[._])(log|logger)$", logger):
                first = node.args[0]
                found.append(str(first.value) if isinstance(first, ast.Constant) else ast.unparse(first))
    return found


def _errors() -> set[str]:
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in {"tests", "bench"}]
    return {str(event) for package in packages for path in package.rglob("*.py") for event in _events(path)}


def test_every_alert_and_every_error_of_the_log_has_one_entry_and_nothing_else_has() -> None:
    errors = _errors()
    assert "The supervised command is not started again." in errors
    assert sorted(ENTRIES) == sorted([*ALERTS, *errors])


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_says_what_it_means_what_to_check_and_what_to_do(entry: str) -> None:
    text = RUNBOOK.split(f"### {entry}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    said = " ".join(re.findall(r"\*\*(.+?)\.\*\*", text)).lower()
    assert all(part in said for part in ("meaning", "check", "fix")), said


def test_every_command_of_the_runbook_exists() -> None:
    named = set(re.findall(r"meterbridge ([a-z-]+)", RUNBOOK))
    assert named <= COMMANDS.keys()
    assert {"doctor", "exceptions", "report", "post"} <= named


def test_every_link_inside_leads_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", entry.lower()).replace(" ", "-") for entry in ENTRIES}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors
    for file, anchor in re.findall(r"\]\(([\w.-]+\.md)#?([^)]*)\)", RUNBOOK):
        text = (ROOT / "docs" / file).read_text()
        headings = {
            re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.M)
        }
        assert not anchor or anchor in headings, (file, anchor)
