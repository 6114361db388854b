"""The stack without containers: redis, nginx and the services as children of one supervisord. It ends with this process.

`start(root, port)`, `stack.wait_healthy(120)`, …, `stack.stop()`; `with start(root, port) as stack:` stops it, too.
"""

import atexit
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
from supervisor.xmlrpc import SupervisorTransport

from services.cli import stack_files
from services.cli.client import Failure
from services.cli.stack_files import HOST, Layout

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
FRESH_SECONDS = 30.0  # the trainer's heartbeat is younger than this, or it is not alive
Log = Callable[[str], None]


class StackError(Failure):
    """The stack cannot start, or one of its services cannot; the message says which and why."""


@dataclass
class Stack:
    """A running local stack."""

    layout: Layout
    environment: dict[str, str]
    log: Log
    _supervisord: subprocess.Popen
    _lock: IO[str]
    _since: float = field(default_factory=time.time)
    _stopped: bool = False

    @property
    def url(self) -> str:
        return self.layout.url

    @property
    def data(self) -> Path:
        return self.layout.data

    def wait_healthy(self, timeout: float = 120) -> dict[str, float]:
        """Wait until every service does its work; the seconds after which each did.

        Raises StackError, with the last lines of its log, when one gave up or the time is over."""
        missing, up, begin = list(stack_files.OFFSETS), {}, time.monotonic()
        while missing:
            for name in missing.copy():
                if self.healthy(name):
                    missing.remove(name)
                    up[name] = round(time.monotonic() - begin, 1)
                    self.log(f"{name} is up ({up[name]:.0f} s)")
            self._raise_if_given_up(missing, time.monotonic() - begin > timeout, timeout)
            if missing:
                time.sleep(0.3)
        return up

    def healthy(self, name: str) -> bool:
        """Does this service do its work now?"""
        ports = self.layout.ports
        match name:
            case "redis":
                return _answers_ping(ports["redis"])
            case "trainer":
                beats = [path.stat().st_mtime for path in (self.data / "workers").glob("trainer-*.json")]
                return max(beats, default=0) > max(self._since, time.time() - FRESH_SECONDS)
            case "llama":  # without an export it is up and has nothing to serve: any answer will do
                return _status(f"http://{HOST}:{ports['llama']}/health") is not None
            case _:
                return _status(f"http://{HOST}:{ports[name]}/health") == 200

    def states(self) -> dict[str, dict[str, Any]]:
        """What supervisord says of each program: statename, pid, start, spawnerr, …"""
        return {info["name"]: info for info in self._call("getAllProcessInfo")}

    def pid(self, name: str) -> int:
        """The process id of a program; 0 while it is not running."""
        return self.states()[name]["pid"]

    def end_service(self, name: str) -> None:
        """Stop a program; it stays stopped until `start_service`."""
        with contextlib.suppress(xmlrpc.client.Fault):  # it was not running
            self._call("stopProcess", name)

    def start_service(self, name: str) -> None:
        """Start a program that was stopped; returns when it has started (not: when it is healthy)."""
        self._call("startProcess", name)

    def restart(self, name: str) -> None:
        """Stop a program and start it again."""
        self.end_service(name)
        self.start_service(name)

    def tail(self, name: str, lines: int = 12) -> str:
        """The last lines of a program's log."""
        path = self.layout.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self, grace: float = 130) -> None:
        """Stop everything: politely for `grace` seconds (a run in hand writes its checkpoint), then by force."""
        if self._stopped:
            return
        try:
            self._supervisord.terminate()
            self._supervisord.wait(grace)
        except subprocess.TimeoutExpired:
            self.log(f"Not stopped after {grace:.0f} s: ending what is left by force.")
        finally:  # also when a second Ctrl-C has no patience
            self._stopped = True
            end(self.layout.folder)
            self._supervisord.wait()
            self._lock.close()
            atexit.unregister(self.stop)

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.layout.socket}")
        with xmlrpc.client.ServerProxy(f"http://{HOST}", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _raise_if_given_up(self, missing: list[str], late: bool, timeout: float) -> None:
        if self._supervisord.poll() is not None:
            words = (self.layout.logs / "supervisord.out").read_text(errors="replace").strip()
            raise StackError(f"The stack's supervisor has ended (exit code {self._supervisord.returncode}). {words}")
        try:
            states = {name: info["statename"] for name, info in self.states().items()}
        except (OSError, xmlrpc.client.Error):  # not listening yet
            states = {}
        dead = [name for name in missing if states.get(name) == "FATAL"]
        for name in dead or (missing[:1] if late else []):
            why = "keeps ending right after its start" if dead else f"is not healthy after {timeout:.0f} s"
            log = self.layout.logs / f"{name}.log"
            raise StackError(f"{name} {why}. The end of {log}:\n{self.tail(name)}")


def start(
    root: Path,
    port: int = 8080,
    log: Log = print,
    *,
    folder: Path | None = None,
    base_model: str | None = None,
    online: bool = False,
    extra: Mapping[str, str] | None = None,
) -> Stack:
    """Start the whole stack on `port` and the four after it, its files under `folder` (`root`/.local by default).

    It ends with this process: on `stop()`, at exit, on SIGINT and SIGTERM, and, by the kernel's doing, on SIGKILL.
    Raises StackError when a port is taken, a program is missing, or a stack runs in that folder already."""
    layout = Layout(root.resolve(), (folder or root / ".local").resolve(), port)
    for program, package in (("redis-server", "redis-server"), ("nginx", "nginx-light")):
        if not stack_files.find(program):
            raise StackError(f"{program} is not installed. Run scripts/install, or: sudo apt-get install {package}")
    layout.folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(layout)
    end(layout.folder, spare={child.pid for child in psutil.Process().children(recursive=True)})  # left by a killed one
    for name, number in layout.ports.items():
        _check_free(name, number, port)
    stack_files.write(layout)
    surroundings = stack_files.environment(layout, base_model=base_model, online=online, extra=extra)
    _check_nginx(layout)
    layout.socket.unlink(missing_ok=True)
    log(f"Starting {', '.join(stack_files.OFFSETS)} at {layout.url}; logs in {layout.logs}")
    command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord"]
    with open(layout.logs / "supervisord.out", "wb") as output:
        supervisord = subprocess.Popen(
            [*command, "-c", str(layout.folder / "supervisord.conf")],
            cwd=layout.folder / "work",  # also by this its members are known
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops things in order
            pass_fds=[lock.fileno()],  # the folder is taken as long as supervisord lives
            preexec_fn=_end_with_parent,
        )
    stack = Stack(layout, surroundings, log, supervisord, lock)
    atexit.register(stack.stop)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that atexit runs
    return stack


def end(folder: Path, spare: Collection[int] = ()) -> None:
    """End by force every process that belongs to the stack in `folder`, but for the process ids in `spare`."""
    left = [process for process in members(folder) if process.pid not in spare]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def members(folder: Path) -> Iterator[psutil.Process]:
    """The processes of the stack in `folder`: known by their environment; redis and nginx, which write their titles
    over it, by the folder they are in."""
    for process in psutil.process_iter(["name", "cwd"]):
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            inside = (process.info["cwd"] or "").startswith(str(folder) + os.sep)
            titled = (process.info["name"] or "").startswith(("nginx", "redis"))
            if (inside and titled) or process.environ().get("TANDEM_LOCAL") == str(folder):
                yield process


def _lock(layout: Layout) -> IO[str]:
    file = open(layout.folder / "lock", "a+")  # noqa: SIM115  # held as long as the stack runs
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StackError(
            f"A stack is already running in {layout.folder}. Stop it first, or use another folder."
        ) from None
    return file


def _check_free(name: str, number: int, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError as error:
            raise StackError(
                f"Port {number}, meant for {name}, is not to be had{_holder(number)} ({error.strerror}). "
                f"Tandem takes {port} to {port + 4}; choose another row with --port."
            ) from None


def _holder(number: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == number and connection.pid:
                return f": {psutil.Process(connection.pid).name()} (process {connection.pid}) has it"
    return ": another program has it"


def _check_nginx(layout: Layout) -> None:
    command = [*stack_files.commands(layout)["nginx"], "-t", "-q"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise StackError(f"nginx does not accept {layout.folder / 'nginx.conf'}:\n{result.stderr.strip()}")


def _end_with_parent() -> None:
    """In the child, before it becomes supervisord: SIGTERM when the parent dies, however it dies (man 2 prctl)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def _status(url: str) -> int | None:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code
    except httpx.HTTPError:
        return None
