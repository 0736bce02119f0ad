"""Logs: one line of JSON or text on standard error, secrets and local variables never in them."""

import json
import logging
import sys

import pytest

from core.logging import configure, get_logger, without_password

HIDDEN = "hunter2"


def _fail(password: str) -> None:
    if password:
        message = f"it broke at redis://me:{password}@host"
        raise RuntimeError(message)


@pytest.mark.parametrize("format_", ["console", "json"])
def test_secrets_and_local_variables_stay_out(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json" if format_ == "json" else "console")
    log = get_logger("flow")
    try:
        _fail(HIDDEN)
    except RuntimeError:
        log.exception("Something failed.", password=HIDDEN, url=f"redis://me:{HIDDEN}@host/0")
        logging.getLogger("library").exception("A library failed at %s.", f"postgres://me:{HIDDEN}@host")
    output = capsys.readouterr()
    assert output.out == ""
    assert "Something failed." in output.err
    assert "A library failed" in output.err
    assert "it broke" in output.err
    assert HIDDEN not in output.err


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    get_logger("flow").info("An epoch ended.", events=3)
    logging.getLogger("library").warning("Odd: %s", 4)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["event"] == "An epoch ended."
    assert (lines[0]["events"], lines[0]["part"], lines[0]["level"]) == (3, "flow", "info")
    assert (lines[1]["event"], lines[1]["level"]) == ("Odd: 4", "warning")


def test_level_and_silent_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console", "WARNING")
    get_logger("flow").info("not shown")
    logging.getLogger("urllib3.connectionpool").warning("not shown either")
    get_logger("flow").warning("shown")
    errors = capsys.readouterr().err
    assert "not shown" not in errors
    assert "shown" in errors


def test_password_in_url() -> None:
    assert without_password("redis://u:p%40ss@h:1/0 and http://h/") == "redis://u:***@h:1/0 and http://h/"
    assert without_password("amqp://:pw@h") == "amqp://:***@h"
    assert sys.stderr is not None
