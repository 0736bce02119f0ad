from pathlib import Path
from typing import Any

import pytest
import yaml

from config.plan_file import with_plans
from config.revision import Configuration
from core.errors import ConfigError
from tests.operators.rate_support import contract, customer, revision, version

INPUT: dict[str, Any] = {"id": "input", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}
PLAN_Q: dict[str, Any] = {"id": "q", "versions": [version(INPUT)]}
RECORDED = revision([version(INPUT)], [customer("acme"), customer("globex")], plans=[PLAN_Q]).configuration


def laid_over(tmp_path: Path, **content: Any) -> Configuration:
    path = tmp_path / "plans.yaml"
    path.write_text(yaml.safe_dump(content))
    return with_plans(RECORDED, path)


def problems(tmp_path: Path, **content: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        laid_over(tmp_path, **content)
    return "\n".join(caught.value.problems)


def test_plans_replace_those_of_the_same_id(tmp_path: Path) -> None:
    changed = laid_over(tmp_path, plans=[{"id": "p", "versions": [version(INPUT | {"unit_amount": "2"})]}])
    assert [(plan.id, plan.versions[0].charges[0]["unit_amount"]) for plan in changed.plans] == [("p", "2"), ("q", "1")]
    assert changed.customers == RECORDED.customers
    assert changed.meters == RECORDED.meters


def test_a_customer_may_get_another_plan(tmp_path: Path) -> None:
    moved = customer("globex", contracts=[contract(plan="n")])
    changed = laid_over(tmp_path, plans=[{"id": "n", "versions": [version(INPUT)]}], customers=[moved])
    assert [plan.id for plan in changed.plans] == ["p", "q", "n"]
    assert [(one.id, one.contracts[0].plan) for one in changed.customers] == [("acme", "p"), ("globex", "n")]


def test_all_problems_are_named_with_their_place(tmp_path: Path) -> None:
    text = problems(tmp_path, meters=[], plans=[{"id": "p", "versions": []}, {"versions": [version(INPUT)]}])
    assert "plans.yaml:1: meters: does not belong here" in text
    assert "plans[p].versions: " in text
    assert "plans[1].id: is missing" in text


def test_the_whole_is_checked(tmp_path: Path) -> None:
    unknown = version(INPUT | {"meter": "nothing"}, INPUT | {"id": "x", "model": "graduated", "tiers": []})
    text = problems(tmp_path, plans=[{"id": "p", "versions": [unknown]}])
    assert "plans[p].versions[0].charges[input].meter: " in text
    assert "plans[p].versions[0].charges[x]" in text
    text = problems(tmp_path, customers=[customer("globex", contracts=[contract(plan="n")])])
    assert "customers[globex].contracts[c1].plan: " in text


def test_a_file_without_plans_is_refused(tmp_path: Path) -> None:
    assert "plans.yaml: holds no plans" in problems(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        with_plans(RECORDED, tmp_path / "nothing.yaml")
