"""Run the parts that are named, and put what they come to into serving.json and serving.md."""

import argparse
import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.rows import today
from benchmarks.serving import llama, ours, report
from benchmarks.serving.child import say
from benchmarks.serving.ours import Found
from benchmarks.serving.place import Place
from benchmarks.serving.speed import ADAPTERS
from shared.gpus import gpus
from shared.store import Store


@dataclass(frozen=True)
class Asked:
    """The place, and where llama.cpp's programs and its model are."""

    place: Place
    llama: Path | None
    gguf: Path

    @property
    def adapters(self) -> list[str]:
        store = Store(self.place.layout.data)
        return [str(store.adapter(f"{name}@v1")) for name in ADAPTERS]


def bare(asked: Asked) -> Iterator[Found]:
    """vLLM without adapters, by streams: with its engine in a process of its own, as it comes, and in the one that asks. Each of
    the two is the faster one for some number of streams; the faster one counts."""
    best: dict[str, float] = {}
    for where, apart in {"apart": "1", "inside": "0"}.items():
        for name, speed in told(
            asked, f"bare-{where}", "bare", str(asked.place.checkpoint), VLLM_ENABLE_V1_MULTIPROCESSING=apart
        ):
            yield f"{name}_{where}", speed
            best[name] = max(speed, best.get(name, 0))
            yield name, best[name]


def bare_adapters(asked: Asked) -> Iterator[Found]:
    """vLLM over eight adapters, and what it says with one of them."""
    asked.place.prepare()
    return told(
        asked, "bare_adapters", "bare", str(asked.place.checkpoint), str(asked.place.vllm_says), *asked.adapters
    )


def likeness(asked: Asked) -> Iterator[Found]:
    """What transformers and PEFT say with that adapter, in 100 GiB of the GPU."""
    files = [asked.place.vllm_says, asked.place.ours_says]
    if not any(file.exists() for file in files):
        raise RuntimeError("There is nothing to compare with. Run the part bare_adapters or ours first.")
    arguments = [asked.place.checkpoint, asked.adapters[0], *files]
    return told(asked, "likeness", "likeness", *map(str, arguments))


def told(asked: Asked, name: str, module: str, *arguments: str, **environment: str) -> Iterator[Found]:
    """What a module of the benchmark measures in a process of its own, whose log has this name."""
    with asked.place.python(name, f"benchmarks.serving.{module}", *arguments, **environment) as child:
        for line in child.lines():
            if line.startswith('{"name"'):
                found = json.loads(line)
                yield found["name"], found["value"]


def llama_cpp(asked: Asked) -> Iterator[Found]:
    """llama.cpp by streams; the GGUF file is made if there is none."""
    if asked.llama is None:
        raise RuntimeError("Name the folder with llama.cpp's CUDA build: --llama FOLDER.")
    command = llama.command(asked.llama, asked.gguf)
    if not asked.gguf.exists():
        asked.place.make("gguf", asked.gguf)
    with asked.place.program("llama", command) as child:
        for streams, speed in llama.rows(child.lines()):
            yield f"llama_{streams}", speed


PARTS: dict[str, Callable[[Asked], Iterator[Found]]] = {
    "bare": bare,
    "bare_adapters": bare_adapters,
    "ours": lambda asked: ours.speeds(asked.place),
    "start": lambda asked: ours.start(asked.place),
    "llama": llama_cpp,
    "likeness": likeness,
}


def measure(asked: Asked, parts: list[str]) -> None:
    """Run the parts; each measurement is printed and kept as soon as it is there, beside those of earlier calls."""
    kept = asked.place.work / "measured.json"
    measured: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    device = next((gpu["name"] for gpu in gpus()), "CPU")
    for part in parts:
        try:
            for name, value in PARTS[part](asked):
                measured[name] = {"value": value, "device": device, "date": today()}
                print(json.dumps({"name": name, **measured[name]}), flush=True)
                kept.write_text(json.dumps(measured, indent=1) + "\n")
                report.write(measured)
        except (RuntimeError, OSError, httpx.HTTPError) as error:  # the other parts are measured all the same
            print(f"{part}: {error}", flush=True)
    for row in report.found(measured):
        against = f"{row['ours']:,} against {row['baseline']:,} {row['unit']}"
        print(f"{row['name']}: {against}, {row['ratio']:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a folder with a gpt-oss in MXFP4 and its tokenizer")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the parts to run, in this order")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "tandem-serving", help="files and logs"
    )
    parser.add_argument("--minutes", type=float, default=60, help="then everything is ended; what was measured is kept")
    parser.add_argument("--llama", type=Path, help="the folder with llama.cpp's programs, built for the GPU")
    parser.add_argument("--gguf", type=Path, help="the checkpoint for llama.cpp; it is made if there is none")
    parser.add_argument("--port", type=int, default=18080, help="of nginx; the services take those after it")
    values = parser.parse_args()
    if not (values.checkpoint / "config.json").exists():
        parser.error(f"{values.checkpoint} has no config.json: name the folder of a checkpoint.")
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, values.minutes * 60)
    values.work.mkdir(parents=True, exist_ok=True)
    place = Place(values.work.resolve(), values.checkpoint.resolve(), values.port)
    measure(Asked(place, values.llama, values.gguf or place.work / "base.gguf"), values.only)


def stop(number: int, _: Any) -> None:
    """End in order: whatever runs is a context that ends its processes."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(f"Ended by {signal.Signals(number).name}; what was measured is kept.")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
