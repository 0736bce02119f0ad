"""`docs/pricing.md`: every amount is what the code says, every calculation is right, every model and modifier shown."""

import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from operators.rating import schema
from operators.rating.charges import amount, amount_of_events
from tests.docs_examples import Example, consoles, equations, examples

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "pricing.md").read_text(encoding="utf-8")
EXAMPLES = examples(PAGE)
NAMES = [f"{example.charge.model} {' '.join(list(example.cells.values())[:2])}" for example in EXAMPLES]
WITHOUT_AMOUNT = {"id", "meter", "filter", "unit", "accounting"}
"""Fields that say what is priced and how it is booked."""


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_the_amount_is_what_the_page_says(example: Example) -> None:
    cells = example.cells
    period = cells.get("period", "ended")
    final = period != "runs"
    share = Fraction(1) if period in {"runs", "ended"} else Fraction(period)
    charge = example.charge
    if isinstance(charge, schema.Matrix):
        row = charge.row_for(dict(part.split("=") for part in cells["usage of"].split(", ")))
        if cells["amount"] == "unrated":
            assert row is None
            return
        assert row is not None
        charge = row
    if "values of the events" in cells:
        values = [Decimal(text) for text in cells["values of the events"].split(",")]
        found = amount_of_events(charge, values, final=final, share=share)
    else:
        found = amount(charge, Decimal(cells["quantity"]), int(cells.get("events", "0")), final=final, share=share)
    assert found == Decimal(cells["amount"])


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_the_calculation_is_right(example: Example) -> None:
    sides = equations(example.cells["calculation"])
    assert "=" not in example.cells["calculation"] or sides
    for left, right in sides:
        assert left == right


def test_every_model_and_modifier_has_an_example() -> None:
    models = schema.Charge.__args__
    shown = {type(example.charge) for example in EXAMPLES}
    assert shown == set(models)
    fields = {name for model in models for name in model.model_fields} - WITHOUT_AMOUNT
    used = {name for example in EXAMPLES for name in example.raw}
    assert fields - used == set()
    assert len(EXAMPLES) > 40


@pytest.mark.parametrize(("command", "output"), consoles(PAGE), ids=[command for command, _ in consoles(PAGE)])
def test_commands_print_what_the_page_shows(command: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("METERBRIDGE_"):
            monkeypatch.delenv(name)
    configuration = str(ROOT / "config" / "meterbridge.yaml")
    result = CliRunner().invoke(app, ["--config", configuration, *command.split()])
    assert result.exit_code == 0
    assert result.stdout == output
