"""The rows of a Parquet file, a small batch at a time."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow
import pyarrow.parquet

from shared.datasets.errors import DatasetError
from shared.datasets.readers import Limits, check_expansion, check_total

BATCH = 64  # rows
BUFFER = 64 * 1024  # bytes


def parquet_rows(path: Path, limits: Limits) -> Iterator[tuple[dict, str | None, float]]:
    """Yield (row, problem, share of the file read from 0 to 1); `problem` is a reason to reject the row, or None.

    Members of nested objects that are null are left out: a struct gives every absent member as null. Dates and times
    are given as null, for no conversation is made of them. Raises DatasetError, to be completed with the file's name,
    for a file that is damaged, or that declares or yields more than it may expand to.
    """
    try:
        # neither whole row groups nor the file in memory, as the defaults would have it
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            groups = range(file.metadata.num_row_groups)
            declared = sum(file.metadata.row_group(group).total_byte_size for group in groups)
            check_expansion(declared, path.stat().st_size, limits)
            times = [column.name for column in file.schema_arrow if pyarrow.types.is_temporal(column.type)]
            wanted = [name for name in file.schema_arrow.names if name not in times]
            read = expanded = 0
            for batch in chain.from_iterable(file.iter_batches(BATCH, [g], wanted, use_threads=False) for g in groups):
                expanded += batch.nbytes  # with dictionaries far more than was declared
                check_total(expanded, limits)
                for row, problem in _rows(batch):
                    read += 1
                    yield dict.fromkeys(times) | row, problem, read / file.metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        detail = str(error).splitlines()[0][:200]
        raise DatasetError(f"is a damaged or truncated Parquet file ({detail}). Export or upload it again.") from error


def _rows(batch: pyarrow.RecordBatch) -> Iterator[tuple[dict, str | None]]:
    try:
        yield from [({key: _present(value) for key, value in row.items()}, None) for row in batch.to_pylist()]
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            yield {}, f"invalid UTF-8 ({error.reason})"
            return
        for n in range(batch.num_rows):
            yield from _rows(batch.slice(n, 1))


def _present(value: object) -> object:
    if isinstance(value, dict):
        return {key: _present(inner) for key, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value
