"""The dashboard as its tests call it: each answer of the API is held against the description that the API gives of itself."""

import json
import re
from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from services.dashboard import create_app
from shared import auth, runs
from shared.queue import celery_app
from shared.recipes import resolve
from shared.registry import publish_adapter, publish_export
from shared.schemas import Encoding, ExportCard, Job
from shared.settings import Settings
from shared.store import Store

GOOD = b'{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "thinking": "Two and two."}]}\n'
BAD = b'{"messages": []}\n'


class Api:
    """`api("GET", "/api/runs")` with a key; raises AssertionError for an answer that the description does not allow."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.store = settings, Store(settings.data)
        self.app: Flask = create_app(settings, self.store, celery_app(settings))
        self.key, _ = auth.create_key(self.store, "tests")
        self.spec = self.app.api_doc  # type: ignore[attr-defined]
        self.seen: set[tuple[str, str]] = set()

    def __call__(
        self, method: str, path: str, status: int | None = None, headers: dict[str, str] | None = None, **rest: Any
    ):
        given = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        answer = self.app.test_client().open(path, method=method, headers=given, **rest)
        check(self, method, path.partition("?")[0], answer)
        if status is not None:
            assert answer.status_code == status, answer.get_data(as_text=True)
        return answer

    def upload(self, content: bytes = GOOD, query: str = "filename=chats.jsonl", status: int | None = 201) -> Any:
        return self(
            "POST", f"/api/datasets?{query}", status, data=content, content_type="application/octet-stream"
        ).json

    def run(self, run_id: str, state: str = "queued", **job: Any) -> str:
        """A run in the data directory, in some state."""
        values = {"dataset": "chats@0", "recipe": "tiny", "name": "chats", **job}
        runs.create(self.store, run_id, "train", Job(**values), resolve("tiny"))
        if state != "queued":
            runs.update(self.store, run_id, state=state)
        return run_id

    def adapter(self, name: str = "chats") -> str:
        """A published adapter; its weights are a word."""
        with self.store.staging(self.store.adapters()) as staged:
            (staged / "adapter_model.safetensors").write_bytes(b"weights")
            card = {
                "name": name,
                "run": "train-1",
                "base_model": "b",
                "base_revision": "r",
                "dataset": "chats@0",
                "dataset_sha256": "0",
                "recipe": "tiny",
                "values": resolve("tiny"),
                "sha256": "0",
                "bytes": 7,
                "steps": 3,
                "loss_first": 2.0,
                "loss_last": 1.0,
                "proof": {},
            }
            return publish_adapter(self.store, staged, card).reference

    def export(
        self, file: str = "chats-v1-MXFP4.gguf", content: bytes = b"GGUF and more", encoding: Encoding = "MXFP4"
    ) -> str:
        """A published export; its content is a phrase."""
        self.store.exports().mkdir(parents=True, exist_ok=True)
        staged = self.store.exports() / ".new"
        staged.write_bytes(content)
        card = ExportCard(
            file=file,
            run="export-1",
            adapter="chats@v1",
            adapter_sha256="0",
            base_model="b",
            base_revision="r",
            encoding=encoding,
            sha256="0",
            bytes=len(content),
            bits_per_weight=5.3,
        )
        publish_export(self.store, staged, card)
        return file


def check(api: Api, method: str, path: str, answer: TestResponse) -> None:
    """Hold an answer against the description; a path that is not in it must be refused as such."""
    found = [known for known in api.spec["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path)]
    template = min(found, key=lambda known: known.count("{"), default=None)
    operation = api.spec["paths"].get(template, {}).get(method.lower())
    if operation is None:
        assert answer.status_code in (204, 400, 401, 403, 404, 405) or not path.startswith("/api")
        return
    api.seen.add((method, template))
    described = operation["responses"].get(str(answer.status_code))
    assert described, (
        f"{method} {template} answers {answer.status_code}, which its description does not have: {answer.text}"
    )
    for media, content in (described.get("content") or {}).items():
        if media == "application/json":
            schema = {**content.get("schema", {}), "components": api.spec["components"]}
            Draft202012Validator(schema).validate(json.loads(answer.data))
        else:
            assert answer.mimetype == media
