"""Publishing is one rename; an alias is a movable name with a memory."""

import errno
import os
from pathlib import Path

import pytest

from shared import auth, recipes, registry
from shared.recipes import RecipeError
from shared.schemas import NOT_SERVED, Encoding, ExportCard, Recipe
from shared.store import BadName, NotFound, Store, publish, write_atomic

BASE = "openai/gpt-oss-20b"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def card(name: str) -> dict:
    return {
        "name": name, "run": "r", "base_model": BASE, "base_revision": "abc", "dataset": "d@1", "dataset_sha256": "0",
        "recipe": "tiny", "values": Recipe().model_dump(), "sha256": "1", "bytes": 3, "steps": 1,
        "loss_first": 2.0, "loss_last": 1.0, "proof": {},
    }  # fmt: skip


def adapter(store: Store, name: str = "house") -> str:
    with store.staging(store.adapters()) as staged:
        (staged / "adapter_model.safetensors").write_bytes(b"abc")
        os.chmod(staged / "adapter_model.safetensors", 0o600)
        return registry.publish_adapter(store, staged, card(name)).reference


def export(store: Store, name: str = "house-v1-F16.gguf", encoding: Encoding = "F16") -> str:
    store.exports().mkdir(exist_ok=True)
    staged = store.exports() / ".staged"
    staged.write_bytes(b"GGUF")
    card = ExportCard(
        file=name, run="r", adapter="house@v1", adapter_sha256="1", base_model=BASE, base_revision="abc",
        encoding=encoding,
        sha256="2", bytes=4, bits_per_weight=16,
    )  # fmt: skip
    registry.publish_export(store, staged, card)
    return name


def test_versions_count_up_and_files_can_be_read_by_others(store: Store) -> None:
    assert [adapter(store), adapter(store)] == ["house@v1", "house@v2"]
    mode = (store.adapter("house@v1") / "adapter_model.safetensors").stat().st_mode & 0o777
    assert mode == 0o644
    assert not list(store.adapters().glob(".staging*"))


def test_a_failed_publication_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.staging(store.adapters()) as staged:
            (staged / "half").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(store.adapters().iterdir()) == []


def test_publishing_over_something_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "kept").touch()
    assert not publish(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "kept").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "f", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_alias_moves_remembers_and_goes_back(store: Store) -> None:
    one, two, gguf = adapter(store), adapter(store), export(store)
    assert registry.point_alias(store, "production", one) is None
    assert registry.point_alias(store, "production", two) == one
    assert registry.point_alias(store, "production", gguf) == two
    assert registry.undo_alias(store, "production") == two
    assert registry.aliases(store) == {"production": two}
    assert [change["target"] for change in registry.alias_history(store, "production")] == [one, two, gguf, two]
    registry.remove_alias(store, "production")
    assert registry.aliases(store) == {}


def test_an_alias_to_nothing_is_refused(store: Store) -> None:
    adapter(store)
    with pytest.raises(NotFound, match="house@v1"):
        registry.point_alias(store, "production", "house@v9")
    with pytest.raises(BadName):
        registry.point_alias(store, "../evil", "house@v1")
    assert registry.aliases(store) == {}


def test_the_served_export_is_the_aliass_or_the_newest_gguf_file(store: Store) -> None:
    adapter(store)
    assert registry.served_export(store, "gguf") is None
    first = export(store)
    export(store, "house-v1-Q8_0.gguf")
    newest = registry.served_export(store, "gguf")
    assert newest == registry.exports(store)[0]
    for encoding in NOT_SERVED:
        export(store, f"house-v1-{encoding}", encoding)
    assert registry.served_export(store, "gguf") == newest
    registry.point_alias(store, "gguf", first)
    pointed = registry.served_export(store, "gguf")
    assert pointed and pointed.file == first
    registry.point_alias(store, "gguf", "house@v1")  # which is no export
    assert registry.served_export(store, "gguf") == newest


def test_a_model_name_is_base_alias_adapter_or_export(store: Store) -> None:
    adapter(store), export(store)
    registry.point_alias(store, "production", "house@v1")
    assert registry.resolve(store, BASE, BASE).kind == "base"
    assert registry.resolve(store, "production", BASE).name == "house@v1"
    assert registry.resolve(store, "house@v1", BASE).kind == "adapter"
    assert registry.resolve(store, "house-v1-F16", BASE).kind == "export"
    for wrong in ("nothing", "house@v7", "../../etc/passwd", "", "a/b@c"):
        with pytest.raises(NotFound, match="There are"):
            registry.resolve(store, wrong, BASE)


def test_a_sign_in_link_works_once(store: Store) -> None:
    token = auth.new_sign_in(store)
    assert [auth.use_sign_in(store, token), auth.use_sign_in(store, token), auth.use_sign_in(store, "x")] == [
        True,
        False,
        False,
    ]


def test_a_key_is_stored_as_a_hash_and_can_be_revoked(store: Store) -> None:
    key, record = auth.create_key(store, "laptop")
    assert key not in "".join(path.read_text() for path in store.keys().glob("*.json"))
    assert auth.check_key(store, key)["name"] == "laptop"
    assert auth.check_key(store, key + "x") is None
    auth.revoke_key(store, record["id"])
    assert auth.check_key(store, key) is None


def test_every_recipe_resolves_and_explains_each_value() -> None:
    assert {"quick_test", "standard", "high_quality", "memory_efficient", "execution-plan", "tiny"} <= set(
        recipes.names()
    )
    for name in recipes.names():
        assert recipes.resolve(name).about
        lines = [line for line in recipes.text(name).splitlines() if line and not line.startswith("#")]
        assert all("# " in line for line in lines), name


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"lora_rnk": 8}, "Did you mean 'lora_rank'"),
        ({"lora_rank": 0}, "lora_rank cannot be 0"),
        ({"lora_dropout": 0.1}, "train_experts"),
        ({"supervise": "everything"}, "supervise cannot be 'everything'"),
        ({"train_experts": False, "train_attention": False}, "nothing to train"),
        ({"patience": 2, "evaluate_every": None}, "evaluate_every"),
        ({"scheduler": "cosine_with_min_lr"}, "min_learning_rate"),
        ({"report_to": ["fax"]}, "report_to"),
        ({"method": "dpo", "packing": True}, "packing is for the methods sft and text"),
        ({"method": "text", "supervise": "final"}, "supervise is for the method sft"),
        ({"train_router": True, "train_experts": False}, "train_router needs train_experts"),
        ({"train_router": True, "precision": "nf4"}, "a precision other than nf4"),
    ],
)
def test_an_impossible_value_is_refused_by_name(overrides: dict, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.resolve("standard", overrides)
