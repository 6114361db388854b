"""The environment, read once into one frozen object; no other file looks at it."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a service must know to start. Each field is an environment variable of the same name in capitals,
    `TANDEM_` in front (`HF_HOME`, `HF_TOKEN` and `REDIS_URL` excepted). `.env.example` explains each."""

    model_config = SettingsConfigDict(env_prefix="TANDEM_", frozen=True, populate_by_name=True, extra="ignore")

    data: Path = Field(description="the data directory, shared by all services")
    hf_home: Path = Field(validation_alias="HF_HOME", description="the Hugging Face cache")
    redis_url: str = Field(validation_alias="REDIS_URL", description="the queue")
    base_model: str = Field("openai/gpt-oss-20b", description="what adapters are trained on and served over")
    public_url: str = Field("http://127.0.0.1:8080", description="the address that people type; links begin with it")
    inference_url: str = Field("http://inference:8000", description="the server of base and adapters")
    llama_url: str = Field("http://llama:8000", description="the server of GGUF exports")
    inference_replicas: str = Field("", description="inference servers, by address, that the router chooses from")

    heartbeat_seconds: float = Field(5.0, gt=0, description="how often a claim says that its run is alive")
    stale_seconds: float = Field(30.0, gt=0, description="a claim without a heartbeat for so long is abandoned")
    max_attempts: int = Field(5, ge=1, description="how often a run is begun again after its worker died")
    train_memory_gib: float = Field(
        0.0, ge=0, description="most of its GPU's memory that training takes, in GiB; 0 is all that is free"
    )
    stop_grace_seconds: float = Field(120.0, gt=0, description="time a run has to write its checkpoint when cancelled")
    upload_limit_bytes: int = Field(8 << 30, gt=0, description="the largest upload")
    min_free_bytes: int = Field(1 << 30, ge=0, description="less free space than this refuses new runs and uploads")
    session_hours: float = Field(24 * 14, gt=0, description="how long a browser stays signed in")

    engine: Literal["auto", "vllm", "unsloth"] = Field("auto", description="what answers for base and adapters")
    context_tokens: int = Field(8192, ge=256, description="the longest prompt plus answer that the servers accept")
    sequences: int = Field(32, ge=1, description="requests that base and adapters answer in one batch")
    cached_tokens: int = Field(32768, ge=256, description="tokens of all those requests that the KV cache holds")
    waiting_requests: int = Field(
        128, ge=1, description="requests that may wait for a place; more are told to come back"
    )
    kept_adapters: int = Field(
        8, ge=1, description="adapters in memory at once; the one not used for longest goes first"
    )
    response_cache_bytes: int = Field(
        0, ge=0, description="memory for answers that equal requests are given once more; 0 keeps none"
    )
    deadline_seconds: float = Field(3600.0, gt=0, description="the longest that a request may wait and be answered")
    drain_seconds: float = Field(25.0, ge=0, description="how long answers may go on when the server is to stop")
    gguf_parallel: int = Field(4, ge=1, description="requests that llama.cpp answers in one batch")
    gguf_gpu_layers: int = Field(0, ge=0, description="layers of the GGUF model kept on a GPU; 0 is the CPU")
    gguf_alias: str = Field("gguf", description="the alias whose export llama.cpp serves; without it, the newest")
    metrics_port: int = Field(0, ge=0, le=65535, description="where the trainer's /metrics is; 0 is nowhere")
    metrics_host: str = Field("127.0.0.1", description="the address it listens at there: it asks for no key")
    queue: str = Field("tandem", description="the queue's name in Redis")


def load() -> Settings:
    """The settings of this process.

    Raises SystemExit with the names of the variables that are missing or wrong."""
    try:
        return Settings()  # type: ignore[call-arg]  # pydantic fills the fields from the environment
    except ValidationError as error:
        raise SystemExit("\n".join(_sentence(e) for e in error.errors())) from None


def described(settings: Settings) -> list[dict[str, str | None]]:
    """Every setting as text: its variable, value, default (None if it has none) and description; passwords in addresses
    are covered."""
    return [
        {
            "variable": _variable(name),
            "value": covered(_text(getattr(settings, name))),
            "default": None if field.is_required() else _text(field.default),
            "description": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]


def covered(text: str) -> str:
    """Text without the passwords of the addresses in it: before the host, or in the query."""
    text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
    return re.sub(r"(?i)((?:password|token|key|secret)=)[^&\s]*", r"\1***", text)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _variable(name: str) -> str:
    return name.upper() if name in ("hf_home", "redis_url") else f"TANDEM_{name.upper()}"


def _sentence(error: dict) -> str:
    variable = _variable(str(error["loc"][0]).lower())
    if error["type"] == "missing":
        return f"The environment variable {variable} is not set. .env.example says what it is for."
    return f"The environment variable {variable} is {error['input']!r}: {error['msg'].lower()}."
