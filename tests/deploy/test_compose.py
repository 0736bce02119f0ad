"""The deployment files, as far as they can be checked without a container engine."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^[\w./-]+:v?\d+(\.\d+){1,3}[\w.-]*$")
SERVERS = ("redis", "clickhouse", "postgres")
OURS = ("flow", "poster", "console", "migrate")
MONITORING = ("prometheus", "grafana")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_all_services_are_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*SERVERS, *OURS, *MONITORING}


def test_images_are_pinned_to_a_version(compose: dict[str, Any]) -> None:
    for name in (*SERVERS, *MONITORING):
        assert PINNED.match(compose["services"][name]["image"]), name
    for name in OURS:
        assert compose["services"][name]["image"].startswith("meterbridge:${METERBRIDGE_VERSION")
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert bases
    assert all(PINNED.match(base) for base in bases)


def test_what_runs_for_long_has_a_health_check_and_restarts(compose: dict[str, Any]) -> None:
    for name in (*SERVERS, "flow", "poster", "console"):
        service = compose["services"][name]
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name
    assert compose["services"]["migrate"]["restart"] == "no"


def test_the_flow_starts_behind_healthy_servers_and_the_migration(compose: dict[str, Any]) -> None:
    waits = compose["services"]["migrate"]["depends_on"]
    assert {name: wait["condition"] for name, wait in waits.items()} == dict.fromkeys(SERVERS, "service_healthy")
    for name in ("flow", "poster", "console"):
        condition = compose["services"][name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"


def test_monitoring_is_a_profile_of_its_own_with_files_that_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert (service.get("profiles") == ["monitoring"]) == (name in MONITORING), name
    for name in MONITORING:
        for volume in compose["services"][name]["volumes"]:
            source, _, rest = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), volume
                assert rest.endswith(":ro"), volume


def test_prometheus_scrapes_what_the_processes_publish(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    for name in ("flow", "poster"):
        (port,) = compose["services"][name]["ports"]
        assert targets[f"meterbridge-{name}"] == f"{name}:{port.rsplit(':', 1)[1]}"


def test_ports_are_bound_to_loopback(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert str(port).startswith("127.0.0.1:"), (name, port)


def test_no_secret_stands_in_a_file(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        environment = service.get("environment", {})
        for key, value in environment.items():
            secret = re.search(r"PASSWORD|SECRET|TOKEN|LEDGER__URL", key)
            assert not secret or key.endswith("_FILE"), (name, key)
            assert "@" not in str(value), (name, key)
        for used in service.get("secrets", ()):
            assert used in compose["secrets"], (name, used)
    assert all(list(secret) == ["file"] for secret in compose["secrets"].values())
    example = (ROOT / ".env.example").read_text()
    assert not re.search(r"^\w*(PASSWORD|SECRET|TOKEN)\w*=", example, re.MULTILINE)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored
    assert "secrets/" in ignored


def test_redis_keeps_an_append_only_file_and_never_evicts(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_state_and_data_are_on_named_volumes(compose: dict[str, Any]) -> None:
    used = {
        str(volume).split(":", 1)[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
        if not str(volume).startswith(".")
    }
    assert used == set(compose["volumes"])


def _variables() -> set[str]:
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / ".env.example").read_text()
    text += (ROOT / "docker" / "entrypoint.sh").read_text() + (ROOT / "Dockerfile").read_text()
    return set(re.findall(r"METERBRIDGE_[A-Z_]+", text)) - {"METERBRIDGE_VERSION", "METERBRIDGE_"}


def test_every_setting_named_in_the_files_exists() -> None:
    names = _variables()
    assert "METERBRIDGE_CLICKHOUSE__PASSWORD" in names
    for name in names:
        model: Any = Settings
        for part in name.removeprefix("METERBRIDGE_").lower().split("__"):
            assert part in model.model_fields, name
            model = model.model_fields[part].annotation


def test_the_image_runs_as_another_user_with_hash_checked_packages() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert re.search(r"^USER meterbridge$", text, re.MULTILINE)
    assert text.index("USER meterbridge") < text.index("ENTRYPOINT")


def test_the_image_holds_every_package_of_the_project() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"packages = \[(.*?)\]", pyproject, re.DOTALL)
    assert listed
    packages = {name.split(".")[0] for name in re.findall(r'"([\w.]+)"', listed[1])}
    copied = set(re.findall(r"^COPY (\w+) \./\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    allowed = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == packages
    assert packages <= allowed


def test_the_entry_point_can_be_run_and_passes_signals_on() -> None:
    script = ROOT / "docker" / "entrypoint.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().rstrip().endswith('exec meterbridge "$@"')


@pytest.mark.parametrize(("mode", "code"), [(0o444, 0), (0o000, 1)])
def test_a_secret_that_cannot_be_read_is_said_rather_than_left_out(tmp_path: Path, mode: int, code: int) -> None:
    secret = tmp_path / "redis_password"
    secret.write_text("hunter2")
    secret.chmod(mode)
    text = (ROOT / "docker" / "entrypoint.sh").read_text().replace("/run/secrets", str(tmp_path))
    script = tmp_path / "entrypoint.sh"
    script.write_text(text.replace("exec meterbridge", "exec env"))
    script.chmod(0o755)
    user = 65534 if os.geteuid() == 0 else None  # who is root may read everything
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False, user=user)  # noqa: S607
    assert done.returncode == code
    if code:
        assert "may not read the secret redis_password" in done.stderr
    else:
        assert "METERBRIDGE_REDIS__PASSWORD=hunter2" in done.stdout
