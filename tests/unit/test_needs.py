"""An export says before it begins that disk or memory is too small for it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from services.trainer import needs
from services.trainer.child import Context, Refused
from services.trainer.gguf import write_gguf, write_lora_gguf
from services.trainer.gguf_tensors import Checkpoint
from services.trainer.lora import read_pairs
from services.trainer.merged import Merged, write_merged
from shared import runs
from shared.schemas import ENCODINGS, Job
from shared.settings import Settings
from shared.store import Store
from tests.unit.test_gguf import make_native
from tests.unit.tiny_gpt_oss import tiny


@pytest.fixture
def context(settings: Settings, store: Store) -> Context:
    spec = runs.create(store, "export-1", "export", Job(adapter="house@v1", encoding="F16"))
    return Context(settings, store, spec, 1)


def view_of(base: Path, adapter: Path, encoding: str) -> Merged:
    return Merged(Checkpoint(base), read_pairs(adapter, tiny().config.to_dict()), dense=encoding == "merged")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_disk_that_is_asked_for_is_what_is_written(
    base: Path, adapter: Path, tmp_path: Path, encoding: str
) -> None:
    view, config = view_of(base, adapter, encoding), tiny().config.to_dict()
    asked = needs.disk_bytes(view, config, adapter, encoding) - needs.SPARE_DISK
    if encoding == "merged":
        write_merged(view, base, tmp_path / "merged", lambda: None)
    elif encoding == "LoRA":
        write_lora_gguf(adapter, config, tmp_path / "lora.gguf")
        write_gguf(base, tmp_path / "base.gguf", needs.exact_encoding(view), name="base")
    else:
        write_gguf(base, tmp_path / "model.gguf", encoding, name="m", weights=view)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0 <= written - asked < 300_000, "headers and the tokenizer"


def test_a_lora_is_compared_on_a_base_whose_experts_are_its_own(base: Path, adapter: Path, tmp_path: Path) -> None:
    native, _ = make_native(base, tmp_path / "native")
    assert needs.exact_encoding(view_of(base, adapter, "LoRA")) == "F16"
    assert needs.exact_encoding(view_of(native, adapter, "LoRA")) == "MXFP4"


@pytest.mark.parametrize("encoding", ["F16", "Q4_K_M", "LoRA", "merged"])
def test_what_does_not_fit_is_refused_with_the_way_out(
    context: Context, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    view = view_of(base, adapter, encoding)
    needs.check(context, view, base, adapter, encoding)
    monkeypatch.setattr(needs.psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 28))
    with pytest.raises(Refused, match=r"GB of memory and 0\.3 GB are available\. Stop what else runs here"):
        needs.check(context, view, base, adapter, encoding)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(Refused, match=r"0\.0 GB are free\. Delete exports or checkpoints"):
        needs.check(context, view, base, adapter, encoding)


def test_merged_weights_of_20_billion_fit_24_gb_of_memory_and_the_limit_of_a_container_counts(
    context: Context, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(base, adapter, "merged")
    monkeypatch.setattr(needs, "weight_bytes", lambda _: 42_000_000_000)
    assert needs.memory_bytes(view, "merged") < 12_000_000_000
    monkeypatch.setattr(needs.exits, "memory_limit", lambda: 8 << 30)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    with pytest.raises(Refused, match=r"8\.6 GB are available"):
        needs.check(context, view, base, adapter, "merged")
