"""The requests of OpenAI's API that are understood, with their bounds, and the frame of its answers."""

import secrets
import time
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from services.inference import fields, messages
from services.inference.fields import refuse
from services.inference.grammar import answer_grammar
from shared.harmony import Piece
from shared.schemas import Effort


class Sampled(fields.refusing(fields.SAMPLING)):  # type: ignore[misc]
    """What all requests for an answer have. Fields that are not known, or change nothing here, are left alone."""

    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool = False
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    logit_bias: fields.LogitBias = Field(default_factory=dict)
    stop: fields.Stop = Field(default_factory=list)
    deadline: fields.Deadline | None = None
    fallback: bool = Field(True, description="whether an export may answer for its adapter while that cannot")

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_default(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        return field.get_default(call_default_factory=True) if value is None and not field.is_required() else value


class _Request(Sampled):
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=8, description="answers to make")

    @property
    def usage_wanted(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))


class ChatRequest(fields.refusing(fields.CHAT), _Request):  # type: ignore[misc]
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    reasoning_effort: Effort | None = None
    reasoning: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    thinking_token_budget: fields.Budget = -1
    response_format: fields.ResponseFormat | None = None
    tools: fields.Tools = Field(default_factory=list)
    tool_choice: fields.ToolChoice = "auto"
    parallel_tool_calls: bool = Field(True, description="gpt-oss makes one call at a time in either case")
    return_token_ids: bool = Field(False, description="as in vLLM: prompt_token_ids, and token_ids of each choice")
    continue_final_message: bool = Field(False, description="as in vLLM: go on with the last message, an answer")

    @field_validator("top_logprobs")
    @classmethod
    def _asked_for(cls, top: int, info: ValidationInfo) -> int:
        if top and not info.data.get("logprobs"):
            raise refuse("needs logprobs to be true.")
        return top

    @field_validator("tool_choice")
    @classmethod
    def _can_be_chosen(cls, choice: fields.ToolChoice, info: ValidationInfo) -> fields.ToolChoice:
        names = [tool.function.name for tool in info.data.get("tools", [])]
        if choice == "required" and not names:
            raise refuse("is 'required', but there are no tools to call.")
        if isinstance(choice, fields.NamedFunction) and choice.name not in names:
            raise refuse(f"names {choice.name!r}, which is not among the tools.")
        return choice

    @property
    def effort(self) -> str:
        """Whichever spelling of the effort was sent. Raises Unreadable for an effort that there is not."""
        nested = (self.chat_template_kwargs or {}).get("reasoning_effort") or (self.reasoning or {}).get("effort")
        effort = self.reasoning_effort or nested or "medium"
        if effort not in ("low", "medium", "high"):
            raise messages.Unreadable("reasoning_effort", f"cannot be {effort!r}: it is low, medium or high.")
        return effort

    @property
    def must_call(self) -> bool:
        """Whether the turn has to end with a tool call."""
        return self.tool_choice not in ("none", "auto")

    @property
    def grammar(self) -> str | None:
        """What the answer has to follow, as `Constraint` takes it; None where anything may come."""
        chosen = self.tool_choice.name if isinstance(self.tool_choice, fields.NamedFunction) else None
        callable_ = [tool for tool in self._tools if chosen in (None, tool["function"]["name"])]
        answer = self.response_format.answer if self.response_format else None
        return answer_grammar(answer, [tool["function"] for tool in callable_], must_call=self.must_call)

    def conversation(self) -> dict[str, Any]:
        """The conversation as harmony renders it, without the last message where the model goes on with that.

        Raises Unreadable with the message that cannot be read."""
        shown = self._read[:-1] if self.continue_final_message else self._read
        told = self.response_format.told if self.response_format else None
        named = {"tools": self._tools, "response_format": told}
        return {"messages": shown, **{name: value for name, value in named.items() if value}}

    def begun(self) -> list[Piece]:
        """What the model is to have said already, as it would have written it; nothing for a new answer.

        Raises Unreadable when there is nothing to go on from."""
        if not self.continue_final_message:
            return []
        return messages.begun(self._read[-1] if len(self._read) > 1 else {"role": "none", "content": ""})

    @cached_property
    def _read(self) -> list[dict[str, Any]]:
        return [messages.message(f"messages[{n}]", given) for n, given in enumerate(self.messages)]

    @property
    def _tools(self) -> list[dict[str, Any]]:
        """The tools as they were sent; none where none may be called, for the model would."""
        tools = [] if self.tool_choice == "none" else self.tools
        return [tool.model_dump(exclude_unset=True) for tool in tools]


class CompletionRequest(fields.refusing(fields.COMPLETION), _Request):  # type: ignore[misc]
    """`POST /v1/completions`: text, or token ids, continued as they are."""

    prompt: str | list[int]
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=20, description="how many of the likeliest tokens are told with each")
    ignore_eos: bool = Field(False, description="as in vLLM: go on for max_tokens, whatever comes; to measure speed")


def new_id(prefix: str, joint: str = "-") -> str:
    return f"{prefix}{joint}{secrets.token_hex(12)}"


def error(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def envelope(kind: str, ident: str, model: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The frame that every answer and every chunk has."""
    return {"id": ident, "object": kind, "created": int(time.time()), "model": model, "choices": choices, **more}
