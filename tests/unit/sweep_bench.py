"""A sweep without a worker: its runs are written as a trainer would leave them, and what is sent is noted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.trainer import sweep
from shared import registry, runs, sweeps
from shared.recipes import resolve
from shared.schemas import Job, RunSpec
from shared.store import Store, write_json
from shared.sweep_schemas import Range, SweepSpec, SweepStatus

SEARCH = {"learning_rate": Range(low=1e-4, high=1e-2), "lora_rank": [8, 16, 32]}


@dataclass
class Bench:
    """`loss` says how well a trial of some values ends."""

    store: Store
    monkeypatch: pytest.MonkeyPatch
    trials: int = 3
    dataset: str = "chats@0"
    overrides: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[dict[str, Any]], float] = lambda values: values["learning_rate"]
    sent: list[str] = field(default_factory=list)
    advancing: bool = False

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(sweep.queue, "send", lambda app, run, attempt: self.sent.append(run.id))
        job = Job(dataset=self.dataset, recipe="tiny", name="best", overrides=self.overrides)
        recipe = resolve("tiny", self.overrides)
        self.spec = SweepSpec(id="sweep-1", job=job, recipe=recipe, search=SEARCH, trials=self.trials)
        write_json(self.store.sweep(self.spec.id) / "spec.json", self.spec.model_dump(exclude_none=True))

    def advance(self) -> SweepStatus:
        self.advancing = True
        try:
            sweep.advance(None, self.store, self.spec)
        finally:
            self.advancing = False
        return sweeps.read_status(self.store, self.spec.id)

    def waiting(self) -> list[RunSpec]:
        return [runs.read_spec(self.store, run_id) for run_id, _ in runs.in_state(self.store, "queued", "running")]

    def validated(self, run: RunSpec, *losses: float, steps: int = 100) -> None:
        """The run trains, and has validated after each tenth of its steps."""
        runs.update(self.store, run.id, state="running", step=steps // 10 * len(losses), steps=steps)
        for place, loss in enumerate(losses, 1):
            runs.append_event(self.store, run.id, "metric", step=steps // 10 * place, validation_loss=loss)

    def succeed(self, run: RunSpec, loss: float | None = None) -> str:
        """The run publishes an adapter and ends; it leaves a checkpoint."""
        loss = self.loss(run.job.overrides) if loss is None else loss
        (self.store.run(run.id) / "checkpoints" / "checkpoint-100").mkdir()
        with self.store.staging(self.store.adapters()) as staged:
            card = {
                "name": "best", "run": run.id, "base_model": "b", "base_revision": "r", "dataset": "chats@0",
                "dataset_sha256": "0", "recipe": "tiny", "values": run.recipe, "sha256": "0", "bytes": 7, "steps": 100,
                "loss_first": 2.0, "loss_last": 1.0, "validation_loss": loss, "proof": {},
            }  # fmt: skip
            reference = registry.publish_adapter(self.store, staged, card).reference
        runs.finish(self.store, run.id, "succeeded", result=reference)
        return reference

    def to_its_end(self) -> SweepStatus:
        """Each run that waits succeeds, until the sweep has ended."""
        for _ in range(100):
            if (status := self.advance()).ended:
                return status
            for run in self.waiting():
                self.succeed(run)
        pytest.fail("the sweep does not end")

    def adapters(self) -> list[str]:
        return [card.reference for card in registry.adapters(self.store)]
