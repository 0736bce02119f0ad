"""`config check` reads the options of each adapter and says where and what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.checks import check
from config.checks_erp import OPTIONS
from config.entities import EntityErp
from config.erp_rest import RestOptions
from config.revision import Configuration
from config.settings import Settings
from core.errors import ConfigError
from sinks.erp.registry import FACTORIES, Adapters, create
from tests.sinks.erp.rest_options import EXAMPLES, SHIPPED
from tests.sinks.ledger.samples import entity

TRYTON: dict[str, Any] = {"url": "https://erp", "database": "erp", "credential": {"environment": "KEY"}}


def findings(adapter: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    made = entity() | {"erp": {"adapter": adapter, "company": "1", "options": options}}
    found = check(Configuration.model_validate({"entities": [made]}))
    return [(".".join(map(str, one.location)), one.message) for one in found if not one.is_warning]


def test_every_adapter_has_options_and_a_factory() -> None:
    assert set(OPTIONS) == set(FACTORIES)


@pytest.mark.parametrize("kind", SHIPPED)
def test_the_shipped_examples_are_right(kind: str) -> None:
    assert findings("rest", yaml.safe_load((EXAMPLES / f"erp_{kind}.yaml").read_text())) == []


def test_sound_options_give_an_adapter() -> None:
    assert findings("tryton", TRYTON) == findings("journal", {}) == []
    erp = EntityErp(adapter="tryton", company="1", options=TRYTON)
    adapters = Adapters(Settings())
    assert adapters(erp).name == "tryton"
    assert adapters(erp) is adapters(erp)
    assert adapters(erp) is not adapters(erp.model_copy(update={"options": TRYTON | {"database": "other"}}))


@pytest.mark.parametrize(
    ("adapter", "options", "place", "message"),
    [
        ("sap", {}, "adapter", "unknown adapter 'sap'"),
        ("journal", {"url": "x"}, "options.url", "is not a known field"),
        ("tryton", {"url": "https://erp", "database": "erp"}, "options.credential", "is missing"),
        ("tryton", TRYTON | {"url": "erp:8000"}, "options.url", "must be a URL"),
        ("tryton", TRYTON | {"url": "https://user:pass@erp"}, "options.url", "must not hold a user"),
        ("tryton", TRYTON | {"credential": {}}, "options.credential", "one of them"),
        ("tryton", TRYTON | {"credential": {"environment": "A", "file": "b"}}, "options.credential", "one of them"),
        ("tryton-vanilla", TRYTON | {"batch_documents": 0}, "options.batch_documents", "greater than or equal to 1"),
    ],
)
def test_wrong_options_are_found(adapter: str, options: dict[str, Any], place: str, message: str) -> None:
    ((where, text),) = findings(adapter, options)
    assert where == f"entities.0.erp.{place}"
    assert message in text
    assert "pass@" not in text
    with pytest.raises(ConfigError):
        create(Settings(), EntityErp(adapter=adapter, company="1", options=options))


def quickbooks(path: str, value: Any) -> dict[str, Any]:
    """Return the example for QuickBooks with one field changed."""
    plain: dict[str, Any] = yaml.safe_load(Path(EXAMPLES / "erp_quickbooks.yaml").read_text())
    inner: Any = plain
    *names, last = path.split(".")
    for name in names:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("submit.query", {}, "key_header needs {key}"),
        ("idempotency.kind", "upsert", "an upsert needs {key}"),
        ("submit.body", {"DocNumber": "{kee}"}, "unknown placeholder {kee}"),
        ("submit.line", {"Amount": "{amount:number}", "x": "{last}"}, "unknown placeholder {last}"),
        ("lookup.query", {"query": "select"}, "`lookup` needs {key}"),
        ("read_back.query", {"query": "{key}"}, "unknown placeholder {key}"),
        ("outcomes", [{"outcome": "posted"}], "needs `number`"),
        ("outcomes", [{"outcome": "accepted"}], "needs `poll`"),
        ("outcomes.0.text", "(", "not a regular expression"),
        ("entry.key", {"path": "x", "pattern": "no group"}, "exactly one group"),
        ("entry.amount", None, "either `amount` or both"),
        ("auth", {"kind": "basic", "credential": {"environment": "A"}}, "needs a `username`"),
        ("auth", {"kind": "bearer"}, "needs a `credential`"),
    ],
)
def test_a_generic_erp_that_cannot_work_is_refused(path: str, value: Any, message: str) -> None:
    found = findings("rest", quickbooks(path, value))
    assert len(found) >= 1
    assert message in " ".join(text for _, text in found)


def test_the_pace_is_that_of_batches() -> None:
    from sinks.erp.rest import RestAdapter  # noqa: PLC0415

    plain = quickbooks("rate_per_s", 8)  # burst 40, a lookup and a submit each
    capabilities = RestAdapter(RestOptions.model_validate(plain), "1").capabilities
    assert (capabilities.postings_max, capabilities.rate_per_s) == (20, 0.2)
