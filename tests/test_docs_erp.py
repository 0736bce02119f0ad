"""`docs/erp.md`: its entities in YAML pass the check, and its table of posting rules is what the code has."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.checks import check
from config.posting_rules import DEFAULTS
from config.revision import Configuration

PAGE = (Path(__file__).parents[1] / "docs" / "erp.md").read_text(encoding="utf-8")
BLOCKS: list[dict[str, Any]] = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
ROW = re.compile(r"^\| (?P<kinds>`[a-z_`, ]+`) \| `(?P<debit>[a-z_]+)` \| `(?P<credit>[a-z_]+)` \|", re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=", ".join)
def test_the_configuration_shown_is_sound(block: dict[str, Any]) -> None:
    assert [one.message for one in check(Configuration.model_validate(block)) if not one.is_warning] == []


def test_the_table_of_rules_is_that_of_the_code() -> None:
    shown = {
        kind: (match["debit"], match["credit"])
        for match in ROW.finditer(PAGE)
        for kind in re.findall(r"[a-z_]+", match["kinds"])
    }
    assert shown == {kind: (rule.debit, rule.credit) for kind, rule in DEFAULTS.items()}
