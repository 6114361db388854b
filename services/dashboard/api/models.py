"""The shapes that the API answers with; the description at /api/openapi.json is made of them."""

from typing import Any, Literal

from pydantic import BaseModel, Field, computed_field

from shared.schemas import Action, AdapterCard, ExportCard, Kind, RunSpec, State
from shared.speed import Speed
from shared.sweep_schemas import SweepSpec, SweepTrial

ProblemType = Literal[
    "not_found", "bad_request", "conflict", "refused", "too_large", "queue_unreachable", "unauthorized", "internal"
]


class ProblemDetail(BaseModel):
    message: str = Field(description="what happened, why, and the way out")
    type: ProblemType
    details: list[Any] = Field(
        default_factory=list, description="fields, rows or ids that it is about; absent when empty"
    )


class Problem(BaseModel):
    error: ProblemDetail


class Page(BaseModel):
    total: int = Field(description="items in all")
    next: str | None = Field(description="address of the next page")


# ---- system, recipes, keys


class Service(BaseModel):
    state: Literal["up", "down", "starting", "asleep"]
    detail: str
    since: str | None = None


class Queue(BaseModel):
    waiting: int | None = Field(description="messages in Redis; null if it does not answer")
    queued: int = Field(description="runs that wait")
    running: int


class Disk(BaseModel):
    total: int
    free: int
    by_kind: dict[str, int] = Field(
        description="bytes of data sets, runs, their checkpoints, adapters, exports, chats and the Hugging Face cache"
    )


class System(BaseModel):
    services: dict[str, Service]
    queue: Queue
    disk: Disk
    gpus: list[Any]
    versions: dict[str, str]
    base_model: str
    base_model_cached: bool


class RecipeItem(BaseModel):
    name: str
    about: str
    values: dict[str, Any] = Field(description="every value of the recipe, defaults included")


class RecipeText(RecipeItem):
    yaml: str = Field(description="the file, with its comments")


class RecipeField(BaseModel):
    type: str
    description: str
    bounds: dict[str, Any]
    default: Any


class RecipePage(Page):
    items: list[RecipeItem]
    fields: dict[str, RecipeField]


class Key(BaseModel):
    id: str
    name: str
    created: str
    last_used: str | None = None


class NewKey(Key):
    key: str = Field(description="the key itself, shown this once")


class SignInLink(BaseModel):
    url: str = Field(description="opens a session in the browser that follows it first")
    hours: int = Field(description="how long it can be used")


class KeyPage(Page):
    items: list[Key]


# ---- runs


class RunItem(BaseModel):
    id: str
    kind: Kind
    created: str
    name: str | None
    dataset: str | None
    recipe_name: str | None
    adapter: str | None
    encoding: str | None
    repository: str | None
    models: list[str] | None = Field(None, description="of a benchmark: what it measures")
    action: Action | None = Field(description="of a fetch: what was to be done with the repository")
    state: State
    step: int
    steps: int | None
    loss: float | None
    reason: str | None
    result: str | None
    queued: str
    started: str | None
    ended: str | None
    attempt: int
    sweep: str | None = Field(description="the sweep that it is a trial of")
    trial: int | None = Field(description="its number in that sweep, from 1")


class RunPage(Page):
    items: list[RunItem]


class QueuedRun(RunItem):
    position: int = Field(description="1 starts next")


class QueuePage(Page):
    items: list[QueuedRun]


class Attempt(BaseModel):
    attempt: int
    worker: str | None
    since: str | None
    heartbeat: str


class Checkpoint(BaseModel):
    step: int
    bytes: int


class Run(RunItem):
    spec: RunSpec
    cloned_from: str | None
    attempts: list[Attempt]
    cancel_requested: bool
    stop_requested: bool
    checkpoints: list[Checkpoint]
    warnings: list[dict[str, Any]]
    speed: list[Speed] = Field(default_factory=list, description="what a benchmark has measured so far")
    data: dict[str, Any] | None
    trainable: dict[str, Any] | None
    proof: dict[str, Any] | None
    evaluation: dict[str, Any] | None


class Event(BaseModel):
    model_config = {"extra": "allow"}

    offset: int = Field(description="byte after the event: where to go on reading")
    time: str
    type: str


class Events(BaseModel):
    items: list[Event]
    next: int
    ended: bool


class Metrics(BaseModel):
    columns: list[str]
    rows: list[list[float | None]]


class Log(BaseModel):
    text: str
    next: int


# ---- sweeps


class SweepItem(BaseModel):
    id: str
    created: str
    name: str
    dataset: str
    recipe_name: str
    searched: list[str] = Field(description="the values that it searches")
    state: State
    reason: str | None
    asked: int = Field(description="trials that were asked for")
    done: int = Field(description="trials that have ended")
    pruned: int = Field(description="trials that were given up early because others were better there")
    best: SweepTrial | None = Field(description="the trial with the lowest validation loss; its adapter is kept")
    ended: str | None


class SweepPage(Page):
    items: list[SweepItem]


class Sweep(SweepItem):
    spec: SweepSpec
    trials: list[SweepTrial]
    importances: dict[str, float] = Field(description="share of each value in how good trials differ from the others")
    cancel_requested: bool


# ---- what was made


class Adapter(AdapterCard):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    aliases: list[str]
    exports: list[str]


class AdapterPage(Page):
    items: list[Adapter]


class AdapterFile(BaseModel):
    name: str
    bytes: int


class AdapterFiles(BaseModel):
    items: list[AdapterFile]


class Export(ExportCard):
    aliases: list[str]


class ExportPage(Page):
    items: list[Export]


class Change(BaseModel):
    time: str
    target: str | None
    before: str | None


class Alias(BaseModel):
    alias: str
    target: str | None = Field(description="null if the alias was removed")
    history: list[Change]


class AliasPage(Page):
    items: list[Alias]


class Pointed(BaseModel):
    alias: str
    target: str | None
    before: str | None


def binary(media: str, description: str) -> dict[str, Any]:
    """The description of an answer that is a file or a stream."""
    return {"description": description, "content": {media: {"schema": {"type": "string"}}}}
