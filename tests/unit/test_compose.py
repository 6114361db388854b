"""compose.yaml and compose.cpu.yaml are safe by default, and .env.example names every variable of theirs."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.dashboard import init

ROOT = Path(__file__).parents[2]
FILES = {
    "gpu": ["compose.yaml"],
    "cpu": ["compose.yaml", "compose.cpu.yaml"],
    "llama-gpu": ["compose.yaml", "compose.llama-gpu.yaml"],
    "several-gpus": ["compose.yaml", "compose.several-gpus.yaml"],
    "two-inference": ["compose.yaml", "compose.two-inference.yaml"],
}
RESERVED = {
    "gpu": {"trainer", "inference"},
    "cpu": set(),
    "llama-gpu": {"trainer", "inference", "llama"},
    "several-gpus": {"trainer", "inference"},
    "two-inference": {"trainer", "inference-1", "inference-2"},
}
DOCKERFILES = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("services/**/*Dockerfile"), ROOT / "nginx/Dockerfile", ROOT / "monitoring/Dockerfile"]
)
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")


class Loader(yaml.SafeLoader):
    """YAML with compose's own tags, read as the values that they stand before."""


Loader.add_constructor("!reset", lambda loader, node: None)
Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True)
                       if isinstance(node, yaml.SequenceNode) else loader.construct_mapping(node, deep=True))  # fmt: skip


def load(name: str) -> dict[str, Any]:
    return yaml.load((ROOT / name).read_text(), Loader)  # a SafeLoader


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


MAIN = load("compose.yaml")
SERVICES = MAIN["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_as_little_power_as_it_needs(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "mem_limit" in service
    assert "privileged" not in service
    if name != "init":  # gives the folders away, then goes on as the user
        assert service["user"] == "${UID:-1000}:${GID:-1000}"
        assert "cap_add" not in service
        assert service["healthcheck"]["test"]


def test_the_one_published_port_is_on_the_loopback():
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "nginx": ["127.0.0.1:${TANDEM_PORT:-8080}:8080"]
    }


def test_only_the_trainer_and_the_way_in_have_a_network_beside_the_closed_one():
    assert MAIN["networks"]["inside"]["internal"] is True
    outside = {name for name, s in SERVICES.items() if set(s.get("networks", [])) - {"inside"}}
    assert outside == {"nginx", "trainer"}
    assert SERVICES["init"]["network_mode"] == "none"


def test_only_the_trainer_writes_the_hugging_face_cache():
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            if ":/huggingface" in mount:
                assert mount.endswith(":ro") == (name not in ("trainer", "init")), (name, mount)


@pytest.mark.parametrize(("name", "more"), [("inference", {"/data/workers", "/kernels"}), ("llama", set())])
def test_servers_read_what_is_published_and_who_has_the_gpu_and_write_kernels_of_their_own_alone(name, more):
    mounts = SERVICES[name]["volumes"]
    written = [mount for mount in mounts if not mount.endswith(":ro")]
    assert written == (["${DATA_DIR:-./data}/kernels/inference:/kernels"] if name == "inference" else [])
    targets = {mount.removesuffix(":ro").rpartition(":")[2] for mount in mounts}
    assert targets == {"/data/adapters", "/data/exports", "/data/aliases", "/huggingface"} | more


def test_trainer_and_inference_have_one_gpu_each_chosen_by_a_variable():
    chosen = {}
    for name, service in SERVICES.items():
        assert not {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"} & set(service.get("environment", {}))
        for device in service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", []):
            assert device["driver"] == "nvidia"
            assert device["capabilities"] == ["gpu"]
            chosen[name] = device["device_ids"]
    assert chosen == {"trainer": ["${TRAIN_GPU:-0}"], "inference": ["${SERVE_GPU:-1}"]}


def test_the_cpu_override_takes_the_gpus_away_and_puts_the_tiny_model_in():
    services = load("compose.cpu.yaml")["services"]
    for name in ("tiny", "trainer", "inference"):
        assert services[name]["deploy"]["resources"]["reservations"] is None
    for name in ("tiny", "dashboard", "trainer", "inference", "llama"):
        assert services[name]["environment"]["TANDEM_BASE_MODEL"] == "tandem/tiny-gpt-oss"
    text = (ROOT / "compose.cpu.yaml").read_text()
    assert text.count("reservations: !reset null") == 3


def test_monitoring_starts_only_when_asked_for_and_grafana_is_behind_a_password():
    assert {name for name, s in SERVICES.items() if s.get("profiles") == ["monitoring"]} == {"prometheus", "grafana"}
    assert not {name for name, s in SERVICES.items() if {"prometheus", "grafana"} & set(s.get("depends_on", {}))}
    grafana = SERVICES["grafana"]
    assert re.fullmatch(r"grafana/grafana:\d+\.\d+\.\d+", grafana["image"])
    assert (
        grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"]
        == grafana["environment"]["GF_USERS_ALLOW_SIGN_UP"]
        == "false"
    )
    assert "GF_SECURITY_ADMIN_PASSWORD" not in grafana["environment"]
    assert "${DATA_DIR:-./data}/secrets/grafana:/run/grafana:ro" in grafana["volumes"]


def test_the_trainer_sees_no_secrets_and_its_metrics_are_where_prometheus_looks():
    hidden = {mount.partition(":")[0] for mount in SERVICES["trainer"]["tmpfs"]}
    assert {"/data/secrets", "/data/keys", "/data/grafana"} <= hidden
    jobs = load("monitoring/prometheus.yml")["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    ports = dict.fromkeys(("dashboard", "inference", "llama"), 8000)
    ports["trainer"] = SERVICES["trainer"]["environment"]["TANDEM_METRICS_PORT"]
    assert targets == {name: [f"{name}:{port}"] for name, port in ports.items()}


def test_init_makes_grafanas_password_once_and_for_its_owner_alone(settings, monkeypatch, capsys):
    monkeypatch.setattr(init.environment, "load", lambda: settings)
    init.main()
    path = settings.data / "secrets" / "grafana" / "admin-password"
    first = path.read_text()
    init.main()
    assert path.read_text() == first and len(first.strip()) >= 20
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.strip() not in capsys.readouterr().out


def test_the_trainer_is_given_longer_to_stop_than_a_run_takes_to_write_its_checkpoint():
    grace = int(SERVICES["trainer"]["stop_grace_period"].removesuffix("s"))
    assert grace > int(example()["TANDEM_STOP_GRACE_SECONDS"])


def test_every_variable_has_its_line_in_the_example_with_the_same_default():
    used = {}
    for name in sorted({name for names in FILES.values() for name in names}):
        for variable, default in VARIABLE.findall((ROOT / name).read_text()):
            assert used.setdefault(variable, default) == default, f"{variable} has two defaults"
    assert used == {name: value for name, value in example().items() if name != "COMPOSE_FILE"}


def test_every_variable_of_the_example_is_explained():
    lines = (ROOT / ".env.example").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"[A-Z_]+=", line):
            together = before.startswith("UID=") or "_MEMORY=" in before  # one explanation for several
            assert before.startswith("# ") or together, line


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_built_on_two_bases_and_do_not_run_as_root(name):
    text = (ROOT / name).read_text()
    bases = set(re.findall(r"^ARG BASE=(.*)$", text, re.M))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M))
    assert bases <= {"debian:bookworm-slim", "python:3.11-slim-bookworm"}
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) <= {"${BASE}", *stages}
    assert "\nUSER 1000:1000\n" in text
    assert not re.search(r"# syntax=|<<|--link|https?://", text)


@pytest.mark.parametrize(
    "path", [ROOT / "constraints.txt", *sorted((ROOT / "requirements").glob("*.txt"))], ids=lambda p: p.name
)
def test_requirements_are_names_and_constraints_are_versions(path):
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        assert re.fullmatch(r"-r [a-z]+\.txt" if line.startswith("-r") else r"[\w.-]+(\[redis\])?(==[\w.]+)?", line), (
            line
        )
        assert ("==" in line) == (path.name == "constraints.txt"), line


@pytest.mark.parametrize("which", FILES)
def test_compose_itself_accepts_the_files(which, tmp_path):
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed here; the tests above read the files without it")
    files = [argument for name in FILES[which] for argument in ("-f", str(ROOT / name))]
    command = ["docker", "compose", "--env-file", str(ROOT / ".env.example"), *files, "config", "--format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    services = yaml.safe_load(result.stdout)["services"]
    assert services["nginx"]["ports"][0]["host_ip"] == "127.0.0.1"
    reserved = {n for n, s in services.items() if (s.get("deploy", {}).get("resources") or {}).get("reservations")}
    assert reserved == RESERVED[which]
    assert services["llama"]["environment"].get("TANDEM_GGUF_GPU_LAYERS", "0") == (
        "99" if which == "llama-gpu" else "0"
    )
    devices = [d for r in [services["trainer"]["deploy"]["resources"].get("reservations")] if r for d in r["devices"]]
    assert [d["device_ids"] for d in devices] == {"cpu": [], "several-gpus": [["0", "1"]]}.get(which, [["0"]])
    if which == "two-inference":
        second = services["inference-2"]
        assert second["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["0"]
        assert second["volumes"] == services["inference-1"]["volumes"] and "volumes" not in services["inference"]
        assert second["read_only"] and "ports" not in second
    if which == "cpu":
        assert set(services["tiny"]["networks"]) == {"inside"}
        assert services["inference"]["depends_on"]["tiny"]["condition"] == "service_completed_successfully"


def test_every_requirement_is_pinned():
    def plain(line: str) -> str:
        return re.split(r"[\[=]", line)[0].lower().replace("_", "-")

    pinned = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for path in (ROOT / "requirements").glob("*.txt"):
        names = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
        assert not {plain(name) for name in names} - pinned, path.name
