"""What a container could do if it were taken over: little."""

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.stack.conftest import OWNER, Stack

NOTHING = ([], "ENOENT", "EACCES")
SERVICES = ("dashboard", "trainer", "inference", "llama")
LOOK = """
import errno, json, os, socket
def connects(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return "connected"
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
def writable(path):
    try:
        os.close(os.open(os.path.join(path, "probe"), os.O_CREAT | os.O_WRONLY))
        os.unlink(os.path.join(path, "probe"))
        return True
    except OSError:
        return False
def listed(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return errno.errorcode[error.errno]
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(), "capabilities": status["CapEff"].strip(), "no_new_privileges": status["NoNewPrivs"].strip(),
    "outside": connects("HOST", PORT),
    "writable": [path for path in ("/", "/app", "/etc", "/venv", "/usr/bin", "/huggingface", "/data", "/data/adapters",
                                   "/data/redis", "/data/secrets", "/data/keys", "/tmp") if writable(path)],
    "data": listed("/data"), "services": listed("/app/services"), "redis": listed("/data/redis"),
    "secrets": listed("/data/secrets"), "keys": listed("/data/keys"), "docker": os.path.exists("/var/run/docker.sock"),
}))
"""


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[str, int]]:
    """Something that listens outside of the stack's networks, as the internet does: this machine, on another bridge."""
    command = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    host = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with socket.create_server((host, 0), backlog=100) as listener:
        yield listener.getsockname()


@pytest.fixture(scope="module", params=SERVICES)
def seen(request: pytest.FixtureRequest, stack: Stack, adapter: str, outside: tuple[str, int]) -> tuple[str, dict]:
    script = LOOK.replace("HOST", outside[0]).replace("PORT", str(outside[1]))
    return request.param, json.loads(stack.inside(request.param, script))


def test_it_is_nobody_special(seen: tuple[str, dict]) -> None:
    _, found = seen
    assert found["uid"] == OWNER
    assert int(found["capabilities"], 16) == 0 and found["no_new_privileges"] == "1"
    assert not found["docker"]


def test_only_the_trainer_has_a_way_to_the_internet(seen: tuple[str, dict]) -> None:
    name, found = seen
    assert (found["outside"] == "connected") == (name == "trainer"), found["outside"]


def test_it_has_its_own_code_and_what_it_needs_of_the_data(seen: tuple[str, dict]) -> None:
    name, found = seen
    assert [s for s in found["services"] if not s.startswith("__")] == [name]
    may_write = {
        "dashboard": ["/data", "/data/adapters", "/data/secrets", "/data/keys", "/tmp"],
        "trainer": ["/huggingface", "/data", "/data/adapters", "/tmp"],
        "inference": ["/tmp"],
        "llama": ["/tmp"],
    }
    assert found["writable"] == may_write[name]
    if name != "dashboard":
        assert found["secrets"] in NOTHING and found["keys"] in NOTHING
    assert found["redis"] in NOTHING, "the queue's files are Redis's alone"


@pytest.mark.parametrize("name", ["nginx", "redis"])
def test_the_services_without_python_are_held_as_tightly(stack: Stack, name: str) -> None:
    status = stack.compose("exec", "-T", name, "cat", "/proc/self/status")
    assert f"Uid:\t{OWNER}\t" in status and "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert (
        stack.compose("exec", "-T", name, "sh", "-c", "touch /probe 2>&1 || true")
        .strip()
        .endswith("Read-only file system")
    )


def test_redis_answers_nobody_outside(stack: Stack) -> None:
    assert not stack.inspect("redis")["NetworkSettings"]["Ports"].get("6379/tcp")
