"""The requests of OpenAI's API that are understood, with their bounds, and its answers."""

import secrets
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.harmony import Piece
from shared.schemas import Effort


class _Request(BaseModel):
    """Fields that clients send and that change nothing here are taken and left alone."""

    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: Literal[1] = 1
    deadline: float | None = Field(None, gt=0, description="seconds that the answer may take, waiting included")

    @field_validator("temperature", "top_p", "top_k", "min_p", "n", mode="before")
    @classmethod
    def _null_is_default(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if value is None else value

    @property
    def usage_wanted(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))


class ChatRequest(_Request):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    reasoning_effort: Effort | None = None
    reasoning: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    return_token_ids: bool = Field(False, description="as in vLLM: prompt_token_ids, and token_ids of each choice")
    continue_final_message: bool = Field(False, description="as in vLLM: go on with the last message, an answer")

    @property
    def effort(self) -> str:
        """Whichever spelling of the effort was sent."""
        nested = (self.chat_template_kwargs or {}).get("reasoning_effort") or (self.reasoning or {}).get("effort")
        effort = self.reasoning_effort or nested or "medium"
        if effort not in ("low", "medium", "high"):
            raise ValueError(f"reasoning_effort cannot be {effort!r}: it is low, medium or high.")
        return effort

    def conversation(self) -> dict[str, Any]:
        """The messages as harmony renders them: text parts joined, either name of the reasoning read as thinking.

        Without the last message where the model goes on with it. Raises ValueError that names the message that cannot
        be read."""
        messages = [_message(i, m) for i, m in enumerate(self.messages)]
        if self.continue_final_message:
            messages.pop()
        return {"messages": messages, **({"tools": self.tools} if self.tools else {})}

    def begun(self) -> list[Piece]:
        """What the model is to have said already, as it would have written it; nothing for a new answer.

        Raises ValueError when there is nothing to go on from."""
        if not self.continue_final_message:
            return []
        last = _message(len(self.messages) - 1, self.messages[-1])
        said = [(name, text) for name, text in (("analysis", last.get("thinking")), ("final", last["content"])) if text]
        if last["role"] != "assistant" or len(self.messages) == 1 or last.get("tool_calls") or not said:
            raise ValueError("continue_final_message needs an answer in text as the last message, after a question.")
        between = [_piece("<|end|>"), _piece("<|start|>"), _piece("assistant", "header")]
        made: list[Piece] = []
        for name, text in said:
            made += between if made else []
            made += [_piece("<|channel|>"), _piece(name, "header"), _piece("<|message|>"), _piece(text, "content")]
        return made


class CompletionRequest(_Request):
    """`POST /v1/completions`: text, or token ids, continued as they are."""

    prompt: str | list[int]
    max_tokens: int | None = Field(16, ge=1)


def _piece(text: str, kind: Literal["special", "header", "content"] = "special") -> Piece:
    return Piece(text, "assistant", None, kind, None)


def _message(index: int, message: dict[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise ValueError(
            f"messages[{index}].role cannot be {role!r}: it is system, developer, user, assistant or tool."
        )
    content = message.get("content")
    if isinstance(content, list):
        texts = [
            part.get("text")
            for part in content
            if isinstance(part, dict) and part.get("type") in ("text", "input_text")
        ]
        if len(texts) != len(content):
            raise ValueError(f"messages[{index}].content holds something other than text; this model reads text only.")
        content = "".join(texts)
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise ValueError(f"messages[{index}].content must be a text or a list of text parts.")
    thinking = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
    kept = {key: message[key] for key in ("name", "tool_calls", "tool_call_id") if message.get(key)}
    return {
        "role": role,
        "content": content,
        **({"thinking": thinking} if thinking and role == "assistant" else {}),
        **kept,
    }


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def error(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def envelope(kind: str, ident: str, model: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The frame that every answer and every chunk has."""
    return {"id": ident, "object": kind, "created": int(time.time()), "model": model, "choices": choices, **more}
