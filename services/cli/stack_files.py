"""What the local stack is made of: ports, environment, and the configuration files of redis, nginx and supervisord."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TINY = "tandem/tiny-gpt-oss"
HOST = "127.0.0.1"
# Started in this order, stopped in the other. The offset is added to the public port.
OFFSETS = {"redis": 1, "dashboard": 2, "trainer": None, "inference": 3, "llama": 4, "nginx": 0}
STOP_SECONDS = {
    "trainer": 120,  # it finishes its step and writes a checkpoint
    "inference": 40,  # what is being answered may end
}
TEMPLATE = "nginx/nginx.conf.template"


@dataclass(frozen=True)
class Layout:
    """Where a local stack lives: the checkout `root`, its own `folder`, and its public port."""

    root: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ports(self) -> dict[str, int]:
        return {name: self.port + offset for name, offset in OFFSETS.items() if offset is not None}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def socket(self) -> Path:
        """Supervisord's; the path of a socket has at most 107 bytes (man 7 unix), so a deep checkout has it in /tmp."""
        near = self.folder / "supervisor.sock"
        return near if len(os.fsencode(near)) < 100 else Path(f"/tmp/tandem-{os.getuid()}-{self.port}.sock")


def environment(
    layout: Layout, *, base_model: str | None = None, online: bool = False, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of every service, and of whatever prepares their data. A HF_HOME of the user's own is kept."""
    ports = layout.ports
    mine = {
        "TANDEM_DATA": str(layout.data),
        "TANDEM_BASE_MODEL": base_model or os.environ.get("TANDEM_BASE_MODEL") or TINY,
        "TANDEM_PUBLIC_URL": layout.url,
        "TANDEM_INFERENCE_URL": f"http://{HOST}:{ports['inference']}",
        "TANDEM_LLAMA_URL": f"http://{HOST}:{ports['llama']}",
        "TANDEM_LOCAL": str(layout.folder),  # the mark by which a process is known to belong to this stack
        "REDIS_URL": f"redis://{HOST}:{ports['redis']}/0",
        "HF_HOME": os.environ.get("HF_HOME") or str(layout.folder / "hf"),
        "HF_HUB_OFFLINE": "0" if online else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_AUTO_INSTALL": "0",  # else it runs apt-get by itself
        "TOKENIZERS_PARALLELISM": "false",  # its threads do not survive a fork
        "OMP_NUM_THREADS": str(cores()),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the cores from the other services
        "PYTHONPATH": str(layout.root),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"])),
    }
    mine["no_proxy"] = mine["NO_PROXY"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_") and k != "PYTHONDONTWRITEBYTECODE"}
    kept = {k: v for k, v in os.environ.items() if k.startswith("TANDEM_") and k not in mine}
    return inherited | kept | mine | dict(extra or {})


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find(program: str) -> str | None:
    """The path of a system program; nginx is often where only root looks."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


def commands(layout: Layout) -> dict[str, list[str]]:
    """How each program is started, in the order in which they start."""
    python, ports = [sys.executable, "-m"], layout.ports
    at = {name: ["--host", HOST, "--port", str(ports[name])] for name in ("inference", "llama")}
    return {
        "redis": [find("redis-server") or "redis-server", str(layout.folder / "redis.conf")],
        "dashboard": [
            *python, "gunicorn", "services.dashboard.wsgi:app", "--bind", f"{HOST}:{ports['dashboard']}",
            # sync workers would give one SSE stream the whole process; a thread is cheap
            "--worker-class", "gthread", "--workers", "1", "--threads", "64",
            "--timeout", "60", "--graceful-timeout", "5", "--no-control-socket",
            "--logger-class", "services.dashboard.log.Gunicorn",
        ],
        "trainer": [*python, "celery", "-q", "-A", "services.trainer.app", "worker", "-c", "1", "--loglevel", "INFO"],
        "inference": [*python, "services.inference", *at["inference"]],
        "llama": [*python, "services.llama", *at["llama"]],
        "nginx": [
            find("nginx") or "nginx", "-p", str(layout.folder), "-c", str(layout.folder / "nginx.conf"), "-e", "stderr",
            # started by root, its workers would be nobody, who cannot look into root's folders
            *(["-g", "user root root;"] if os.getuid() == 0 else []),
        ],
    }  # fmt: skip


def write(layout: Layout) -> None:
    """Make the folders and write redis.conf, nginx.conf and supervisord.conf."""
    for name in ("data", "hf", "logs", "redis", "nginx", "work"):
        (layout.folder / name).mkdir(parents=True, exist_ok=True)
    (layout.folder / "redis.conf").write_text(redis_conf(layout))
    (layout.folder / "nginx.conf").write_text(nginx_conf(layout))
    (layout.folder / "supervisord.conf").write_text(supervisord_conf(layout))


def redis_conf(layout: Layout) -> str:
    return f"""\
bind {HOST}
port {layout.ports["redis"]}
dir "{layout.folder / "redis"}"
appendonly yes
save ""
maxmemory 256mb
maxmemory-policy noeviction
"""


def nginx_conf(layout: Layout) -> str:
    """The template with this machine's values. Raises KeyError for a name that the template has and this does not."""
    ports = layout.ports
    values = {
        "RUNTIME": str(layout.folder / "nginx"),
        "NGINX_WORKERS": "1",
        "ACCESS_LOG": str(layout.logs / "access.log"),
        "RESOLVER": HOST,  # never asked: addresses need no resolving
        "LISTEN": f"{HOST}:{layout.port}",
        "GRAFANA": f"{HOST}:9",  # the port of what is discarded: there is none in the local stack
    } | {name.upper(): f"{HOST}:{ports[name]}" for name in ("dashboard", "inference", "llama")}
    return re.sub(r"\$\{([A-Z_]+)\}", lambda match: values[match[1]], (layout.root / TEMPLATE).read_text())


def supervisord_conf(layout: Layout) -> str:
    head = f"""\
[supervisord]
nodaemon=true
silent=true
{"user=root" if os.getuid() == 0 else ""}
logfile={_escaped(layout.logs / "supervisord.log")}
logfile_maxbytes=5MB
pidfile={_escaped(layout.folder / "supervisord.pid")}
[unix_http_server]
file={_escaped(layout.socket)}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(_program(layout, i, *item) for i, item in enumerate(commands(layout).items()))


def _program(layout: Layout, order: int, name: str, command: list[str]) -> str:
    # The trainer alone gets SIGTERM by itself: it stops its own child, which must write its checkpoint first.
    to_group = "false" if name == "trainer" else "true"
    threads = cores() // 2 or 1 if name == "inference" else cores()
    return f"""\
[program:{name}]
command={_escaped(shlex.join(command))}
environment=OMP_NUM_THREADS="{threads}"
priority={order}
autorestart=true
startsecs=3
startretries=3
stopasgroup={to_group}
killasgroup=true
stopwaitsecs={STOP_SECONDS.get(name, 10)}
redirect_stderr=true
stdout_logfile={_escaped(layout.logs / name)}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""


def _escaped(value: Path | str) -> str:
    return str(value).replace("%", "%%")
