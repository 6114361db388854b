"""The models that inference lists are those that somebody here can answer for."""

from pathlib import Path

import pytest

from services.inference.app import _models
from services.inference.backends import Backends
from shared.schemas import NOT_SERVED
from shared.settings import Settings
from shared.store import NotFound, Store
from tests.unit.test_registry import BASE, adapter, export


@pytest.mark.parametrize("encoding", NOT_SERVED)
def test_an_export_for_other_programs_is_neither_listed_nor_answered_for(tmp_path: Path, encoding: str) -> None:
    store = Store(tmp_path)
    adapter(store)
    served, other = export(store, "house-v1-Q4_K_M.gguf", "Q4_K_M"), export(store, f"house-v1-{encoding}", encoding)
    listed = [entry["id"] for entry in _models(store, BASE)]
    assert served in listed and other not in listed
    backends = Backends(
        Settings(data=tmp_path, hf_home=tmp_path, redis_url="redis://none", base_model=BASE), None, "gguf"
    )
    assert backends.find(served, "0").engine == "gguf"
    with pytest.raises(NotFound, match=r"for other programs; it is not served here\. Use its adapter house@v1"):
        backends.find(other, "0")
