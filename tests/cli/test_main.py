"""The command line's base: lazy commands, `--json` everywhere, errors without a traceback."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli import main
from cli.context import Context, context
from cli.main import COMMANDS, Entry, app
from cli.output import emit
from core.errors import CRASHED, ConfigError, FatalError, InvalidRequest, RetryableError
from flows.supervise import Restart, RestartPolicy
from sinks import ledger

ROOT = Path(main.__file__).parents[1]
GOOD = "meters: [{id: m, event_type: t, aggregation: count}]\n"


def _run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("METERBRIDGE_")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=clean | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _hello(name: str = "you", fail: bool = False) -> None:
    """Greet; a command as colleagues write them."""
    if fail:
        message = "Redis at somewhere did not answer: set METERBRIDGE_REDIS__URL"
        raise FatalError(message)
    emit({"hello": name}, f"Hello {name}")


def _broken() -> None:
    message = "a bug"
    raise RuntimeError(message)


def _config_error() -> None:
    raise ConfigError(["a.yaml:1: first", "a.yaml:2: second"])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    here = __name__
    for name, target in (("hello", "_hello"), ("broken", "_broken"), ("badconfig", "_config_error")):
        monkeypatch.setitem(COMMANDS, name, Entry(f"{here}:{target}", "Help from the table."))
    monkeypatch.setitem(COMMANDS, "lacking", Entry("no_such_module.here:run", "Cannot be imported."))


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["meterbridge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_help_lists_every_command_and_imports_none() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for name, entry in COMMANDS.items():
        assert name in done.stdout
        assert entry.help in done.stdout
    code = (
        "import sys; sys.argv = ['m', '--help']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'polars', 'redis', 'bytewax', 'numpy', 'sqlalchemy', 'clickhouse_connect', 'pydantic_settings'}\n"
        "print('loaded', sorted(heavy & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported_and_takes_json(name: str) -> None:
    command = main.load_command(name)
    commands = command.commands.values() if hasattr(command, "commands") else [command]
    for item in commands:
        assert any("--json" in parameter.opts for parameter in item.params), item.name
        assert item.help


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    "arguments", [["--json", "hello", "--name", "me"], ["hello", "--name", "me", "--json"]], ids=["before", "behind"]
)
def test_json_may_stand_before_or_behind_the_command(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"hello": "me"}


@pytest.mark.usefixtures("commands")
def test_a_call_does_not_remember_the_one_before(capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    assert CliRunner().invoke(app, ["hello", "--json"]).exit_code == 0
    assert _main(monkeypatch, "hello") == 0
    assert capfd.readouterr().out.strip() == "Hello you"
    assert context().json is False


@pytest.mark.usefixtures("commands")
def test_our_errors_have_no_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "hello", "--fail") == FatalError.exit_code
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err == "error: Redis at somewhere did not answer: set METERBRIDGE_REDIS__URL\n"
    assert _main(monkeypatch, "hello", "--fail", "--json") == FatalError.exit_code
    assert json.loads(capfd.readouterr().err)["error"] == "FatalError"
    assert _main(monkeypatch, "badconfig") == 1
    assert capfd.readouterr().err == "error: the configuration has 2 problems:\n  a.yaml:1: first\n  a.yaml:2: second\n"


@pytest.mark.usefixtures("commands")
def test_bugs_have_one_and_count_as_a_crash(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code = _main(monkeypatch, "broken")
    assert code == CRASHED
    output = capfd.readouterr()
    assert "Traceback" in output.err
    assert output.err.endswith("RuntimeError: a bug\n")
    assert isinstance(RestartPolicy().ended(code, 1.0, 1.0), Restart)


def test_a_ledger_that_is_locked_for_long_is_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Given another process that writes for longer than anybody waits; then the flow's start ends to be tried again."""
    monkeypatch.setattr("sinks.ledger.database.BUSY_TIMEOUT_MS", 50)
    monkeypatch.setenv("METERBRIDGE_STATE_DIR", str(tmp_path))
    ledger.migrate(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert _main(monkeypatch, "run") == RetryableError.exit_code
    finally:
        other.close()
    assert "error: the ledger database does not answer: database is locked" in capfd.readouterr().err


@pytest.mark.usefixtures("commands")
def test_a_missing_package_of_one_command_does_not_break_the_others() -> None:
    with pytest.raises(InvalidRequest, match="needs the package no_such_module"):
        main.load_command("lacking")
    assert CliRunner().invoke(app, ["hello"]).exit_code == 0
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_unknown_command_suggests_and_exits_2() -> None:
    result = CliRunner().invoke(app, ["confg"])
    assert result.exit_code == 2
    assert "config" in result.output


def test_version_and_no_arguments() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.startswith("meterbridge ")
    assert "Commands" in CliRunner().invoke(app, []).output


def test_config_path_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METERBRIDGE_CONFIG_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    shipped = Context().config_path
    assert shipped == ROOT / "config" / "meterbridge.yaml"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "meterbridge.yaml").write_text(GOOD)
    assert Context().config_path == Path("config/meterbridge.yaml")
    monkeypatch.setenv("METERBRIDGE_CONFIG_FILE", "other.yaml")
    assert Context().config_path == Path("other.yaml")
    assert Context(config=Path("named.yaml")).config_path == Path("named.yaml")


def test_commands_are_plain_functions_or_apps() -> None:
    assert isinstance(main.load_command("config"), typer.core.TyperGroup)


@pytest.mark.parametrize("command", ["run", "status", "up", "migrate"])
def test_a_state_directory_that_cannot_be_used_is_named_without_a_traceback(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("no directory")
    done = _run(command, METERBRIDGE_STATE_DIR=f"{tmp_path}/file/state")
    assert done.returncode == FatalError.exit_code
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/file/state" in done.stderr
    assert "METERBRIDGE_STATE_DIR" in done.stderr
