"""From conversations to an answer of one's own model, through nginx with a key, as `make demo` does it without containers."""

import re
import subprocess

from services.cli.demo import Report, chain
from tests.conftest import wait_for
from tests.stack.conftest import OWNER, PROJECT, Stack

LIMITS = {"dashboard": 300, "llama": 300}  # megabytes


def test_the_chain_proves_itself(stack: Stack) -> None:
    wait_for(lambda: stack.healthy("inference"), 60, "inference is healthy")
    report = Report()
    chain(stack.client, report)
    assert report.ok, report


def test_what_containers_write_belongs_to_the_person(stack: Stack, dataset: str) -> None:
    written = [path for path in stack.store.root.rglob("*") if not path.is_symlink()]
    assert len(written) > 20
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(OWNER, OWNER)}


def test_the_way_in_is_the_one_port_and_on_the_loopback(stack: Stack) -> None:
    found = subprocess.run(
        ["docker", "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", "{{.Names}} {{.Ports}}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    published = [line for line in found.splitlines() if "->" in line]
    assert len(published) == 1 and re.search(rf"nginx\S* 127\.0\.0\.1:{stack.port}->8080/tcp", published[0]), found


def test_images_are_small_and_torch_is_there_once(stack: Stack) -> None:
    def image(name: str, form: str) -> str:
        command = ["docker", "image", "inspect", f"tandem/{name}", "--format", form]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    for name, most in LIMITS.items():
        assert int(image(name, "{{.Size}}")) < most * 1_000_000, name
    layers = {name: image(name, "{{json .RootFS.Layers}}")[1:-1].split(",") for name in ("trainer", "inference")}
    shared = layers["trainer"][:-1]
    assert layers["inference"][: len(shared)] == shared, "the trainer adds its own code, inference that and vLLM"
