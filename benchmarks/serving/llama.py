"""llama.cpp's own benchmark on the same checkpoint as a GGUF file, and what its table says."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.serving.speed import PROMPT, STREAMS, TOKENS

PROGRAM = "llama-batched-bench"
COLUMNS = 10  # PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG, T, S: tokens in, out, streams, …
STREAMS_AT, DECODE_AT = 2, 7


def command(folder: Path, file: Path) -> list[str]:
    """Prompts and answers as the others get them, all layers and the cache on the GPU. Raises RuntimeError without the program."""
    program = folder / PROGRAM
    if not program.exists():
        raise RuntimeError(f"There is no {program}. Name the folder with llama.cpp's CUDA build: --llama FOLDER.")
    cells = max(STREAMS) * (PROMPT + TOKENS) * 5 // 4
    sizes = {"-c": cells, "-b": 2048, "-ub": 512, "-npp": PROMPT, "-ntg": TOKENS, "-npl": ",".join(map(str, STREAMS))}
    return [str(program), "-m", str(file), "-ngl", "99", "-fa", "on", *(str(w) for pair in sizes.items() for w in pair)]


def rows(lines: Iterable[str]) -> Iterator[tuple[int, float]]:
    """(streams, decoded tokens a second of all together) of each row of the table."""
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == COLUMNS and cells[0].isdigit():
            yield int(cells[STREAMS_AT]), float(cells[DECODE_AT])
