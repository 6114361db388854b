"""The nouns of sweeps: what is searched, how a sweep stands, and its trials."""

from typing import Any

from pydantic import Field, model_validator

from shared.schemas import Job, Recipe, State, Strict, now


class Range(Strict):
    """The values from `low` to `high`, both included, that a sweep may choose."""

    low: int | float
    high: int | float
    log: bool | None = Field(None, description="even by factors; by default where high is at least ten times low")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"a range goes from low to high, and {self.low:g} is not below {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a range that is even by factors starts above 0, not at {self.low:g}")
        if self.log is None:
            self.log = self.low > 0 and self.high >= 10 * self.low
        return self


Search = dict[str, Range | list[int | float | bool | str]]


class SweepJob(Strict):
    """What a person asks for: a recipe, and which of its values to search."""

    dataset: str = Field(description="name@version, or a name for its newest version")
    recipe: str | None = Field(None, description="a recipe's name; by default one for the data set's kind of rows")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="values that replace the recipe's in every trial"
    )
    name: str | None = Field(None, description="name of the adapter")
    search: dict[str, Range | list[int | float | bool | str] | str] = Field(
        default_factory=dict,
        description='each value to search, as a range, a list, text such as "1e-5..5e-4" or "8, 16, 32", or "" for what '
        "is usual; none means learning_rate and lora_rank",
    )
    trials: int = Field(12, description="training runs, one after another")


class SweepSpec(Strict):
    """`spec.json` of a sweep: what was asked, fully resolved. Written once."""

    id: str
    created: str = Field(default_factory=now)
    job: Job
    recipe: Recipe
    search: Search
    trials: int
    request_id: str | None = None


class SweepTrial(Strict):
    """One trial of a sweep: the values it took, and how its run stands."""

    number: int
    run: str
    values: dict[str, Any]
    state: State
    pruned: bool = False
    step: int = 0
    steps: int | None = None
    validation_loss: float | None = Field(None, description="of what it published; of one that did not, its last")
    reason: str | None = None
    result: str | None = Field(None, description="its adapter, while it is kept")


class SweepStatus(Strict):
    """`status.json` of a sweep: how it stands."""

    state: State = "queued"
    reason: str | None = Field(None, description="why it ended before its last trial, or failed")
    trials: list[SweepTrial] = Field(default_factory=list)
    best: int | None = Field(None, description="number of the trial with the lowest validation loss")
    importances: dict[str, float] = Field(
        default_factory=dict, description="share of each value in how good trials differ from others; they add up to 1"
    )
    ended: str | None = None
