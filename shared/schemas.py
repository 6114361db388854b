"""The nouns: what a recipe, a run, an adapter and an export are, with the bounds of each value."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["train", "evaluate", "export", "fetch", "benchmark"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Method = Literal["sft", "dpo", "text"]
DataKind = Literal["conversations", "preferences", "text"]
Policy = Literal["final", "analysis+final", "last_turn"]
Effort = Literal["low", "medium", "high"]
Encoding = Literal["MXFP4", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "LoRA", "merged"]
Action = Literal["fetch", "check", "repair", "remove"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
NOT_SERVED: tuple[Encoding, ...] = ("LoRA", "merged")  # what the GGUF server cannot answer from by itself


def now() -> str:
    """This moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Strict(BaseModel):
    """A model that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class Recipe(Strict):
    """Every value of a training run. The YAML files beside this module give each its default for a purpose."""

    about: str = Field("", description="what the recipe is for")
    method: Method = Field(
        "sft",
        description="how it learns: sft from conversations, dpo from pairs of a preferred and a rejected answer, text "
        "from plain text",
    )
    base_model: str = Field("default", description="repository on the hub; 'default' is TANDEM_BASE_MODEL")
    revision: str = Field("main", description="branch, tag or commit of the base model")
    precision: Literal["auto", "mxfp4", "nf4", "bf16", "fp32"] = Field(
        "auto", description="weights of the frozen base: auto takes the checkpoint as it is on a GPU, fp32 on a CPU"
    )
    max_length: int = Field(
        1024, ge=32, le=131072, description="tokens of one example; what is longer is cut, plain text into several"
    )

    lora_rank: int = Field(16, ge=1, le=256, description="rank of the adapter's matrices")
    lora_alpha: float = Field(32, gt=0, le=1024, description="scale of the adapter; twice the rank is usual")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs dropped in training")
    rslora: bool = Field(False, description="scale by alpha over the root of the rank; for ranks above 32")
    train_attention: bool = Field(True, description="adapt the four projections of attention")
    train_experts: bool = Field(True, description="adapt the experts, where most of the parameters are")
    train_router: bool = Field(False, description="adapt what sends tokens to experts as well; needs train_experts")

    supervise: Policy = Field("analysis+final", description="the channels whose tokens are learned, by sft")
    dpo_beta: float = Field(
        0.1, gt=0, le=10, description="how closely dpo keeps to the base: the higher, the less answers change"
    )
    reasoning_effort: Effort = Field("medium", description="effort of conversations that name none")
    validation_share: float = Field(
        0.1, ge=0, le=0.5, description="share of rows kept out of training, chosen by content"
    )

    epochs: float = Field(1.0, gt=0, le=100, description="passes over the rows; unused where steps is set")
    steps: int | None = Field(
        None, ge=1, le=1_000_000, description="optimizer steps; empty means as many as the epochs take"
    )
    batch_size: int = Field(2, ge=1, le=256, description="examples in memory at once")
    accumulation: int = Field(8, ge=1, le=1024, description="batches summed into one step")
    gpus: int = Field(
        1,
        ge=1,
        le=8,
        description="GPUs that share the batches of a step; must divide accumulation",
    )
    shard: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether each of several GPUs keeps a part of the frozen base only: less memory, and slower; auto does so "
        "where it does not fit one. Not in MXFP4",
    )
    learning_rate: float = Field(2e-4, gt=0, le=0.1, description="highest learning rate")
    scheduler: Literal["linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup"] = Field(
        "linear", description="how the learning rate falls"
    )
    min_learning_rate: float | None = Field(None, ge=0, le=0.1, description="where cosine_with_min_lr ends")
    warmup: float = Field(0.05, ge=0, le=0.5, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, le=1, description="pull of the adapter's weights towards zero")
    max_grad_norm: float = Field(1.0, gt=0, le=1000, description="gradients longer than this are shortened to it")
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit"] = Field(
        "adamw_8bit", description="adamw_8bit keeps its state in a quarter of the memory; a CPU takes adamw_torch"
    )
    packing: bool = Field(
        False,
        description="fill rows of max_length tokens with whole examples, which do not see each other: many short ones take as "
        "few steps as their tokens need; batch_size then counts rows",
    )
    gradient_checkpointing: bool = Field(True, description="compute activations twice to hold fewer of them")
    fill_memory: bool = Field(
        True,
        description="do more at once than batch_size where the GPU has room: faster, with the same effective batch",
    )
    offload_embedding: bool = Field(
        False, description="keep the token embedding in the machine's memory: 1.1 GiB less on the GPU, a little slower"
    )
    seed: int = Field(42, ge=0, description="of the adapter's start and the order of the rows")

    log_every: int = Field(1, ge=1, description="steps between two points of the curve")
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between two validations; empty means at the end only"
    )
    save_every: int | None = Field(None, ge=1, description="steps between two checkpoints; empty means every quarter")
    keep_checkpoints: int = Field(2, ge=2, le=100, description="checkpoints kept, the newest ones")
    patience: int | None = Field(None, ge=1, description="validations without progress after which the run stops")
    patience_threshold: float = Field(
        0.0, ge=0, description="the least fall of the validation loss that counts as progress"
    )
    keep_best: bool = Field(
        False, description="publish the checkpoint with the lowest validation loss, not the last one"
    )
    target_loss: float | None = Field(None, gt=0, description="stop when the training loss stays at or below this")
    overfit_below: float = Field(0.2, ge=0, description="a training loss below this is warned of as overfitting")
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list, description="trackers that get the curve as well"
    )

    @model_validator(mode="after")
    def _agree(self) -> "Recipe":
        if not (self.train_attention or self.train_experts):
            raise ValueError("train_attention and train_experts are both off, so there is nothing to train")
        if self.train_experts and self.lora_dropout:
            raise ValueError(
                "lora_dropout must be 0 while train_experts is on: PEFT cannot drop inputs of fused experts"
            )
        # While a GPU decodes, Unsloth applies a router's LoRA only where the experts have one; NF4 renames the router's weight.
        if self.train_router and (not self.train_experts or self.precision == "nf4"):
            raise ValueError("train_router needs train_experts, and a precision other than nf4")
        if self.method != "sft" and self.supervise != "analysis+final":
            raise ValueError(
                f"supervise is for the method sft; {self.method} learns all of an answer or a text, so leave it out"
            )
        if self.method == "dpo" and self.packing:
            raise ValueError("packing is for the methods sft and text; dpo takes its pairs as they are")
        if self.accumulation % self.gpus:
            fit = [str(n) for n in range(1, 9) if self.accumulation % n == 0]
            raise ValueError(
                f"{self.gpus} GPUs cannot share the {self.accumulation} batches of a step evenly: set gpus to "
                f"{', '.join(fit[:-1])}{' or ' if fit[1:] else ''}{fit[-1]}, or accumulation to a multiple of {self.gpus}"
            )
        if self.shard == "always" and self.gpus == 1:
            raise ValueError("shard always needs several GPUs: set gpus above 1, or shard to auto")
        if self.scheduler == "cosine_with_min_lr" and self.min_learning_rate is None:
            raise ValueError("scheduler cosine_with_min_lr needs min_learning_rate")
        if self.min_learning_rate is not None and self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is above learning_rate")
        if (self.patience or self.keep_best) and not (self.evaluate_every and self.validation_share):
            raise ValueError("patience and keep_best need evaluate_every and a validation_share above 0")
        if self.keep_best and (self.save_every or 1) % (self.evaluate_every or 1):
            raise ValueError(
                "keep_best needs a save_every that is a multiple of evaluate_every, or the best is not on disk"
            )
        return self


class Job(Strict):
    """What a person asks for; the fields are the keyword arguments of the Celery task `tandem.<kind>`."""

    dataset: str | None = Field(None, description="name@version, or a name for its newest version")
    recipe: str | None = Field(None, description="a recipe's name")
    overrides: dict[str, Any] = Field(default_factory=dict, description="values that replace the recipe's")
    name: str | None = Field(None, description="name of the adapter or the data set that is made")
    adapter: str | None = Field(None, description="name@version or an alias: what to export or evaluate")
    encoding: Encoding | None = Field(None, description="form of the export")
    repository: str | None = Field(None, description="what to fetch from the Hugging Face hub")
    repository_type: Literal["model", "dataset"] = "model"
    revision: str | None = Field(None, description="branch, tag or commit of the repository")
    action: Action = Field("fetch", description="of a fetch: what to do with the repository in the Hugging Face cache")
    models: list[str] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="of a benchmark: base, adapters, aliases, exports; by default one of each that answers now",
    )
    concurrency: list[Annotated[int, Field(ge=1, le=128)]] | None = Field(
        None, min_length=1, max_length=8, description="of a benchmark: requests at a time; by default 1, 4 and 16"
    )
    tokens: int | None = Field(None, ge=2, le=4096, description="of a benchmark: tokens of each answer")
    prompt_tokens: int | None = Field(None, ge=32, le=131072, description="of a benchmark: tokens of each prompt")


class RunSpec(Strict):
    """`spec.json`: a job, fully resolved. Written once."""

    id: str
    kind: Kind
    created: str = Field(default_factory=now)
    job: Job
    recipe: Recipe | None = None
    cloned_from: str | None = None
    sweep: str | None = Field(None, description="the sweep that it is a trial of")
    trial: int | None = Field(None, description="its number in that sweep, from 1")
    request_id: str | None = Field(None, description="of the HTTP request that asked for it; nginx gave it")


class Status(Strict):
    """`status.json`: how a run stands."""

    state: State = "queued"
    reason: str | None = Field(None, description="why it failed, was cancelled or ended early")
    attempt: int = 0
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    queued: str = Field(default_factory=now)
    started: str | None = None
    ended: str | None = None
    worker: str | None = None
    result: str | None = Field(None, description="what was published: an adapter, an export, a repository")


class AdapterCard(Strict):
    """`card.json` of an adapter: where it comes from and what was proven of it."""

    name: str
    version: str
    created: str = Field(default_factory=now)
    run: str
    base_model: str
    base_revision: str
    dataset: str
    dataset_sha256: str
    recipe: str
    values: Recipe
    sha256: str = Field(description="of adapter_model.safetensors")
    bytes: int
    steps: int
    loss_first: float
    loss_last: float
    validation_loss: float | None = None
    proof: dict[str, Any]

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class ExportCard(Strict):
    """The JSON beside an export: what it is, and how well it agrees with its adapter."""

    file: str
    created: str = Field(default_factory=now)
    run: str
    adapter: str
    adapter_sha256: str
    base_model: str
    base_revision: str
    encoding: Encoding
    sha256: str
    bytes: int
    bits_per_weight: float
    tensors: dict[str, Any] = Field(default_factory=dict, description="count and bytes by tensor type")
    fallbacks: dict[str, str] = Field(default_factory=dict, description="tensors that could not take the encoding")
    fallback_share: float = Field(0.0, description="share of the weights that are in such tensors")
    parity: dict[str, Any] = Field(default_factory=dict)
