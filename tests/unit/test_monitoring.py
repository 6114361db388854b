"""What Prometheus and Grafana are given: alerts that fire when they should, and no name that nobody exposes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from services.dashboard import create_app as dashboard
from services.trainer.metrics import Training
from shared.metrics import exposition
from shared.queue import celery_app
from shared.settings import Settings
from shared.store import Store, write_json
from tests.unit.exposition import inference

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
PROMETHEUS = {"up", "ALERTS"}
# Of llama.cpp's own: https://github.com/ggml-org/llama.cpp/tree/master/tools/server#get-metrics-prometheus-compatible-metrics-exporter
LLAMA = {"llamacpp:requests_processing", "llamacpp:requests_deferred", "llamacpp:tokens_predicted_total"}
WORDS = {"and", "or", "unless", "bool", "by", "on", "ignoring"}


@pytest.fixture
def texts(settings: Settings, store: Store) -> list[str]:
    """The expositions of the dashboard, the inference server and the trainer."""
    settings = settings.model_copy(update={"inference_url": "http://127.0.0.1:1", "llama_url": "http://127.0.0.1:1"})
    gpu = {"uuid": "GPU-1", "memory_total": 2, "memory_used": 1, "use_percent": 50}
    write_json(store.workers() / "trainer-box.json", {"since": None, "gpus": [gpu], "busy": None})
    page = dashboard(settings, store, celery_app(settings)).test_client()
    page.get("/health")
    api = TestClient(inference(settings, None, SimpleNamespace(name="stub")))
    trainer = exposition(Training(store).collect()).decode()
    return [page.get("/metrics").text, api.get("/metrics").text, trainer]


def samples(texts: list[str]) -> dict[str, list[dict[str, str]]]:
    """The labels of every sample, by name; a family that has no sample now is there, too."""
    found: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            found.setdefault(family.name, [])
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """(where it stands, expression) of every alert and every panel."""
    for rule in RULES:
        yield f"rules.yml {rule['alert']}", rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.name} {panel['title']}", target["expr"]


def metrics_of(expression: str) -> set[str]:
    """The names of metrics in an expression of PromQL: what is left without strings, labels, ranges and functions."""
    bare = re.sub(r'\{[^}]*\}|"[^"]*"|\[[^\]]*\]|\b(by|on|ignoring)\s*\([^)]*\)', " ", expression)
    return set(re.findall(r"[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)) - WORDS


def test_the_names_in_an_expression_are_found() -> None:
    text = 'histogram_quantile(0.95, sum by (le) (rate(a_bucket{b="c"}[5m]))) > 1 and ignoring (state) d:e == 0 or vector(0)'
    assert metrics_of(text) == {"a_bucket", "d:e"}


def test_every_alert_and_panel_asks_for_what_is_exposed(texts: list[str]) -> None:
    known = samples(texts)
    for where, expression in expressions():
        unknown = metrics_of(expression) - known.keys() - LLAMA - PROMETHEUS
        assert not unknown, f"{where}: {unknown}"


def test_every_label_that_is_asked_for_has_that_value_somewhere(texts: list[str]) -> None:
    known = samples(texts)
    for where, expression in expressions():
        for name, inside in re.findall(r"(tandem_\w+)\{([^}]*)\}", expression):
            for label, value in re.findall(r'(\w+)!?="([^"]*)"', inside):
                if label != "job":  # Prometheus adds it
                    assert any(labels.get(label) == value for labels in known[name]), f"{where}: {label}={value}"


def test_names_and_labels_follow_the_conventions(texts: list[str]) -> None:
    bounded = {"service", "state", "disk", "uuid", "route", "method", "status", "model", "outcome", "kind", "le"}
    for text in texts:
        for family in text_string_to_metric_families(text):
            assert re.fullmatch(r"tandem_[a-z][a-z0-9_]*", family.name)
            assert not re.search(r"_(ms|milliseconds|minutes|mib|gib|percent)$", family.name)
            assert family.type != "counter" or f"# TYPE {family.name}_total counter" in text
            assert family.type != "histogram" or family.name.endswith("_seconds")
            assert {label for sample in family.samples for label in sample.labels} <= bounded


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == 8
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(rule["annotations"]["description"].split()) > 20 and rule["annotations"]["summary"]


def test_every_panel_has_a_title_a_description_a_unit_and_its_own_place() -> None:
    assert [path.stem for path in DASHBOARDS] == ["machine", "overview", "serving", "training"]
    for path in DASHBOARDS:
        found, taken = json.loads(path.read_text()), set()
        assert found["uid"] == f"tandem-{path.stem}" and found["title"] and found["description"]
        for panel in found["panels"]:
            assert panel["title"] and panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "prometheus"
            at = panel["gridPos"]
            place = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24 and not place & taken, f"{path.name} {panel['title']}"
            taken |= place


def test_the_data_source_is_the_one_that_the_dashboards_name() -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")


# ---- promtool, where it is installed


def promtool(*arguments: str, given: str | None = None) -> str:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=FOLDER, input=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", "rules_test.yml")
    cases = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fires = {
        name
        for case in cases
        for e in case.get("promql_expr_test", [])
        for name in re.findall(r'alertname="(\w+)"', e["expr"])
    }
    silent = {check["alertname"] for case in cases for check in case.get("alert_rule_test", [])}
    assert fires == silent == {rule["alert"] for rule in RULES}


def test_prometheus_itself_finds_nothing_to_say_about_our_names(texts: list[str]) -> None:
    for text in texts:
        promtool("check", "metrics", given=text)


@pytest.mark.parametrize("where, expression", expressions())
def test_every_expression_can_be_read(where: str, expression: str, tmp_path: Path) -> None:
    rules = {"groups": [{"name": "panels", "rules": [{"record": "a", "expr": expression}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    promtool("check", "rules", str(tmp_path / "rules.yml"))
