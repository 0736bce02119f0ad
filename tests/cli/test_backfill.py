"""`meterbridge backfill` as a user calls it, up to where it needs servers."""

from pathlib import Path

from typer.testing import CliRunner

from cli.main import app
from core.errors import InvalidRequest

runner = CliRunner()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    for arguments, named in (
        (["missing.ndjson"], "is not a file"),
        (["missing.ndjson", "--book", "later"], "neither now nor open-periods"),
        (["missing.ndjson", "--yes"], "--reason"),
    ):
        result = runner.invoke(app, ["backfill", *arguments])
        assert isinstance(result.exception, InvalidRequest)
        assert named in str(result.exception)
