"""The loader: every problem at once with its line, environment over file, strict YAML."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import loader
from config.environment import names
from config.loader import examine, load, load_settings
from config.revision import Rules
from config.settings import Settings
from core.errors import ConfigError

CONFIG = Path(loader.__file__).parent


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("METERBRIDGE_"):
            monkeypatch.delenv(name)


def _write(directory: Path, text: str, name: str = "m.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def _problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [text.removeprefix(f"{path.parent}/") for text in caught.value.problems]


@pytest.mark.parametrize("name", ["meterbridge.yaml", "meterbridge.example.yaml"])
def test_shipped_files_are_good(name: str) -> None:
    found = examine(CONFIG / name)
    assert found.problems == ()
    assert found.warnings == ()
    assert found.configuration is not None
    assert found.settings is not None


def test_default_configuration_has_what_the_demo_needs() -> None:
    configuration = load(CONFIG / "meterbridge.yaml")
    assert {meter.aggregation for meter in configuration.meters} == {
        "count",
        "sum",
        "max",
        "min",
        "latest",
        "unique_count",
    }
    assert [entity.functional_currency for entity in configuration.entities] == ["USD", "EUR"]
    subjects = [subject.id for customer in configuration.customers for subject in customer.subjects]
    assert len(subjects) == len(configuration.customers) + 1
    models = {charge["model"] for plan in configuration.plans for v in plan.versions for charge in v.charges}
    assert models == {"per_unit", "graduated", "flat"}


def test_example_names_every_setting_and_rule() -> None:
    written = yaml.safe_load((CONFIG / "meterbridge.example.yaml").read_text())
    for location, annotation in names(Settings).values():
        if hasattr(annotation, "model_fields"):
            continue
        value: Any = written["settings"]
        for part in location:
            assert part in value, location
            value = value[part]
    assert written["rules"].keys() == Rules.model_fields.keys()


def test_all_problems_at_once_with_line_path_and_hint(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        """\
meters:
  - id: a
    event_type: t
    aggregation: summ
    value: $.x
  - event_type: t
    aggregation: count
    colour: red
plans:
  - id: p
    versions:
      - effective_from: 2023-01-01
        currency: USD
        charges:
          - {id: c, meter: zz, model: per_unit,
             unit_amount: 0.1}
customers:
  - id: x
    subjects: [s]
    contracts:
      - {id: k, plan: nope, entity: E,
         from: 2023-01-01T00:00:00Z, plan_version: newest}
rules: {grace_s: -1}
""",
    )
    problems = _problems(path)
    starts = [re.split(r"(?<=[a-z_\]]): ", text)[0] for text in problems]
    assert starts == [
        "m.yaml:4: meters[a].aggregation",
        "m.yaml:6: meters[1].id",
        "m.yaml:8: meters[1].colour",
        "m.yaml:12: plans[p].versions[0].effective_from",
        "m.yaml:15: plans[p].versions[0].charges[c].meter",
        "m.yaml:16: plans[p].versions[0].charges[c].unit_amount",
        "m.yaml:22: customers[x].contracts[k].plan_version",
        "m.yaml:23: rules.grace_s",
    ]
    assert "(got 'summ')" in problems[0]
    assert "hint: " in problems[0]
    assert problems[6].count("got") == 1  # both members of the union in one problem


def test_charges_are_read_by_the_price_engine_with_their_line(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        """\
meters: [{id: m, event_type: t, aggregation: count}]
plans:
  - id: p
    versions:
      - effective_from: 2023-01-01T00:00:00Z
        currency: USD
        charges:
          - id: c
            meter: m
            model: graduated
            tiers:
              - {up_to: "5", unit_amount: "1"}
              - up_to: null
                unit_amount: cheap
""",
    )
    (problem,) = _problems(path)
    assert problem.startswith("m.yaml:14: plans[p].versions[0].charges[c].tiers[1].unit_amount: ")
    assert "(got 'cheap')" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: {grace_s: 1}\nrules: {grace_s: 2}\n", "m.yaml:2: rules: the key stands twice"),
        ("rules:\n  grace_s: 1\n  grace_s: 2\n", "m.yaml:3: rules.grace_s: the key stands twice"),
        ("colours: []\n", "m.yaml:1: colours: is not a known section"),
        ("meters: {id: a}\n", "m.yaml:1: meters: must be a list"),
        ("rules: [1]\n", "m.yaml:1: rules: must be a mapping"),
        ("- 1\n", "m.yaml:1: must be a mapping of sections"),
        ("rules: {grace_s: [\n", "m.yaml:2: not YAML"),
        ("rules: &a {grace_s: 1}\nmeters: [<<: *a]\n", "m.yaml:2: a key must be plain text"),
        ("meters: &a [*a]\n", "an alias inside itself"),
        ("rules: " + "[" * 40 + "]" * 40 + "\n", "nested deeper than"),
        ("rules: " + "[" * 5000 + "]" * 5000 + "\n", "nested too deeply"),
        ("rules: !!python/object:os.system {}\n", "m.yaml:1: the tag"),
    ],
)
def test_what_yaml_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    problems = _problems(_write(tmp_path, text))
    assert any(expected in problem for problem in problems), problems


def test_alias_bombs_end_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("values" in problem for problem in _problems(_write(tmp_path, "\n".join(lines))))


def test_words_and_leading_zeros_stay_text(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "meters: [{id: m, event_type: on, aggregation: sum, value: $.x, filter: {region: [no, yes, 007]}}]\n",
    )
    (meter,) = load(path).meters
    assert (meter.event_type, meter.filter["region"]) == ("on", ("no", "yes", "007"))


def test_a_directory_is_one_configuration(tmp_path: Path) -> None:
    _write(tmp_path, "meters: [{id: a, event_type: t, aggregation: count}]\nrules: {grace_s: 5}\n", "1.yaml")
    second = _write(
        tmp_path, "meters:\n  - id: b\n    event_type: t\n    aggregation: max\nrules: {future_s: 7}\n", "2.yaml"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.problems[0].startswith(f"{second}:2: meters[b]: max needs `value`")
    second.write_text("meters: [{id: b, event_type: t, aggregation: count}]\nrules: {grace_s: 6}\n")
    with pytest.raises(ConfigError, match=r"2\.yaml:2: rules\.grace_s: also in .*1\.yaml:2"):
        load(tmp_path)
    second.write_text("meters: [{id: b, event_type: t, aggregation: count}]\nrules: {future_s: 7}\n")
    configuration = load(tmp_path)
    assert [meter.id for meter in configuration.meters] == ["a", "b"]
    assert (configuration.rules.grace_s, configuration.rules.future_s) == (5, 7)


def test_missing_and_huge_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in _problems(tmp_path / "none.yaml")[0]
    monkeypatch.setattr("config.yaml_source.FILE_BYTES_MAX", 10)
    assert "more than 10" in _problems(_write(tmp_path, "rules: {grace_s: 1}\n"))[0]


def test_environment_beats_file_beats_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(
        tmp_path,
        "settings: {redis: {url: redis://file/0, read_entries: 7}, flow: {workers: 2}}\n"
        "rules: {grace_s: 5, future_s: 6}\n",
    )
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", "redis://env/0")
    monkeypatch.setenv("METERBRIDGE_REDIS__STREAMS", '["a", "b"]')
    monkeypatch.setenv("METERBRIDGE_FLOW", '{"epoch_s": 3}')
    monkeypatch.setenv("METERBRIDGE_RULES__GRACE_S", "9")
    loaded = load_settings(path)
    assert loaded.redis.url == "redis://env/0"
    assert loaded.redis.streams == ("a", "b")
    assert (loaded.redis.read_entries, loaded.flow.workers, loaded.flow.epoch_s) == (7, 2, 3.0)
    assert loaded.redis.idle_claim_ms == 250
    assert type(loaded) is Settings
    rules = load(path).rules
    assert (rules.grace_s, rules.future_s) == (9, 6)
    assert load(path, {"grace_s": 11}).rules.grace_s == 11


def test_bad_environment_is_named_by_variable_beside_the_files_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, "settings:\n  redis:\n    read_entries: many\n")
    monkeypatch.setenv("METERBRIDGE_VERSION", "1.0")
    monkeypatch.setenv("METERBRIDGE_REDIS_URL", "redis://x")
    monkeypatch.setenv("METERBRIDGE_REDIS__STREAMS", "usage:0")
    monkeypatch.setenv("METERBRIDGE_FLOW__EPOCH_S", "1000")
    monkeypatch.setenv("METERBRIDGE_RULES__GRACE_S", "soon")
    problems = examine(path).problems
    assert [text.removeprefix(f"{tmp_path}/").split(": ")[0] for text in problems] == [
        "m.yaml:3",
        "METERBRIDGE_FLOW__EPOCH_S",
        "METERBRIDGE_REDIS_URL",
        "METERBRIDGE_REDIS__STREAMS",
        "METERBRIDGE_RULES__GRACE_S",
    ]
    assert "did you mean METERBRIDGE_REDIS__URL?" in problems[2]


def test_the_charges_of_a_broken_plan_are_checked_too(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        """\
plans:
  - id: p
    versions:
      - effective_from: 2023-13-01T00:00:00Z
        currency: USD
        charges:
          - {id: c, meter: nope, model: per_unit, unit_amount: "1"}
          - {id: d, meter: nope, model: graduated, tiers: [{up_to: null, unit_amount: x}]}
          - nothing
""",
    )
    problems = "\n".join(_problems(path))
    assert "effective_from" in problems
    assert "m.yaml:7: plans[p].versions[0].charges[c].meter: unknown meter 'nope'" in problems
    assert "m.yaml:8: plans[p].versions[0].charges[d].tiers[0].unit_amount" in problems


@pytest.mark.parametrize("streams", ['["a", "b", "a"]', "[]", '[""]'])
def test_a_list_of_streams_that_cannot_be_read_right_is_refused(
    streams: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERBRIDGE_REDIS__STREAMS", streams)
    (problem,) = examine(_write(tmp_path, "settings: {}\n")).problems
    assert problem.startswith("METERBRIDGE_REDIS__STREAMS: settings.redis.streams")


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("METERBRIDGE_REDIS__URL", "127.0.0.1:6390"),
        ("METERBRIDGE_REDIS__URL", "http://u:hunter2@host"),
        ("METERBRIDGE_REDIS__URL", "redis://u:hunter2@host:port"),
        ("METERBRIDGE_CLICKHOUSE__URL", "http://u:hunter2@host:99999"),
        ("METERBRIDGE_CLICKHOUSE__URL", "clickhouse://host"),
        ("METERBRIDGE_LEDGER__URL", "mysql://u:hunter2@host/db"),
        ("METERBRIDGE_LEDGER__URL", "garbage hunter2"),
    ],
)
def test_what_is_no_address_is_refused_before_anything_starts(
    variable: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)
    (problem,) = examine(_write(tmp_path, "settings: {}\n")).problems
    assert problem.startswith(f"{variable}: settings.")
    assert "must be a" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "address", ["redis://u:p@h:1/0", "rediss://h", "unix:///run/redis.sock?db=1", "redis://[::1]:6"]
)
def test_every_kind_of_redis_address_is_accepted(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", address)
    assert load_settings(_write(tmp_path, "settings: {}\n")).redis.url == address


def test_secrets_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(
        tmp_path,
        "settings: {redis: {password: 123456, url: [redis://u:123456@h]}, ledger: {url: 123456}, "
        "clickhouse: {passwordd: '123456'}}\n",
    )
    monkeypatch.setenv("METERBRIDGE_CLICKHOUSE__PASSWORD", "654321")
    problems = examine(path).problems
    assert len(problems) == 4, problems
    assert "123456" not in "".join(problems)
    good = _write(tmp_path, "settings: {}\n")
    assert "654321" not in repr(load_settings(good))


ODD_VALUES = (
    "null", "[]", "{}", "-1", "1.5", "true", "x", "2023-01-01", "2023-13-01", "[1, {a: b}]", "*a", "&a", "!!x y",
    "1e400", "99999999999999999999", "? x", "- y", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "'NaN'",
)  # fmt: skip
LINES = (CONFIG / "meterbridge.example.yaml").read_text().splitlines()
EDIT = st.tuples(st.integers(0, 4), st.integers(0, len(LINES) - 1), st.integers(0, 120), st.sampled_from(ODD_VALUES))


def _edited(lines: list[str], edit: tuple[int, int, int, str]) -> list[str]:
    kind, place, number, value = edit
    place %= max(len(lines), 1)
    line = lines[place] if lines else ""
    new = {
        0: [],
        1: [line, LINES[number % len(LINES)]],
        2: [line[:number]],
        3: [f"{line.split(':', 1)[0]}: {value}"],
        4: [line.replace(line[number % len(line)] if line else "", value, 1)],
    }[kind]
    return lines[:place] + new + lines[place + 1 :]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EDIT, min_size=1, max_size=4))
def test_broken_files_give_problems_with_a_file_name_and_never_crash(
    tmp_path: Path, edits: list[tuple[int, int, int, str]]
) -> None:
    lines = list(LINES)
    for edit in edits:
        lines = _edited(lines, edit)
    path = _write(tmp_path, "\n".join(lines))
    found = examine(path)
    assert all(text.startswith(str(path)) for text in (*found.problems, *found.warnings))
    assert (found.configuration is None or found.settings is None) == bool(found.problems)


def test_times_at_the_edge_and_ids_of_the_wrong_type_are_problems(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "plans:\n"
        "  - id: p\n"
        "    versions:\n"
        "      - effective_from: 0001-01-01T00:00:00+14:00\n"
        "        currency: USD\n"
        "        charges: []\n"
        "  - id: q\n"
        "    versions:\n"
        "      - effective_from: 2023-01-01T00:00:00Z\n"
        "        currency: USD\n"
        "        charges: [{id: {a: b}, meter: [], model: per_unit, unit_amount: '1'}]\n",
    )
    problems = _problems(path)
    assert "outside the years" in problems[0]
    assert {text.split(": ")[0] for text in problems} == {"m.yaml:4", "m.yaml:11"}
