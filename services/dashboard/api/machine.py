"""The shapes of what the API says of the machine: GPUs over time, the disk, the Hugging Face cache."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.dashboard.api.models import Page
from shared.schemas import Action, State


class GpuHistory(BaseModel):
    uuid: str
    name: str | None = Field(description="null for a GPU that no service sees any more")
    memory_total: int | None
    held_by: list[str] = Field(description="the services that see it")
    memory_used: list[float | None]
    use_percent: list[float | None]


class History(BaseModel):
    time: list[int] = Field(
        description="Unix seconds, evenly spaced; null in the lists beside it where nothing was noted"
    )
    free: list[float | None] = Field(description="bytes of the disk")
    memory_used: list[float | None]
    load: list[float | None] = Field(description="processes that run or wait for a processor, over a minute")
    memory_total: int
    disk_total: int
    cores: int
    gpus: list[GpuHistory]


class Request(BaseModel):
    method: Literal["DELETE", "POST"]
    path: str
    body: dict[str, Any] | None


class Deletable(BaseModel):
    kind: Literal["checkpoints", "export", "dataset", "abandoned", "cache"]
    name: str
    bytes: int
    why: str = Field(description="why it can go")
    lost: str = Field(description="what is lost with it")
    page: str | None
    request: Request = Field(description="what deletes it")


class Storage(BaseModel):
    total: int
    free: int
    by_kind: dict[str, int]
    deletable: list[Deletable]


class CacheRevision(BaseModel):
    commit: str
    refs: list[str]
    files: int
    bytes: int


class CacheProblem(BaseModel):
    commit: str | None
    file: str
    problem: str


class CacheRun(BaseModel):
    id: str
    action: Action
    state: State
    result: str | None
    ended: str | None
    found: list[str] = Field(description="what a check that has ended found broken, in words")


class CachedRepository(BaseModel):
    repository: str
    type: Literal["model", "dataset"]
    bytes: int
    last_used: str = Field(description="when a file of it was last read, as far as the disk notes it")
    revisions: list[CacheRevision]
    problems: list[CacheProblem] = Field(
        description="of the quick check; a fetch with the action `check` hashes every file"
    )
    needed_by: str | None = Field(description="why it cannot be removed; null if it can")
    last_run: CacheRun | None = Field(description="the newest run that fetched, checked or repaired it")


class CachePage(Page):
    items: list[CachedRepository]
