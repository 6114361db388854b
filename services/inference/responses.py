"""OpenAI's Responses API without a memory: a request becomes the chat request that says the same."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from services.inference import fields
from services.inference.messages import Unreadable, joined, message
from services.inference.protocol import ChatRequest, Sampled
from shared.schemas import Effort

_REASONING_TEXTS = ("reasoning_text", "summary_text", "text")


class _Reasoning(BaseModel):
    effort: Effort | None = None


class _TextConfig(BaseModel):
    format: fields.ResponseFormat | None = None


def _one_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


Input = Annotated[list[dict[str, Any]], Field(min_length=1), BeforeValidator(_one_message)]


class ResponsesRequest(fields.refusing(fields.RESPONSES), Sampled):  # type: ignore[misc]
    """`POST /v1/responses`. `store` may be sent: nothing is kept, and the answer says so."""

    input: Input
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] = Field(default_factory=dict)
    reasoning: _Reasoning = Field(default_factory=_Reasoning)
    text: _TextConfig = Field(default_factory=_TextConfig)
    tools: fields.Tools = Field(default_factory=list)
    tool_choice: fields.ToolChoice = "auto"
    parallel_tool_calls: bool = True
    include: list[str] = Field(default_factory=list)
    top_logprobs: int = Field(0, ge=0, le=20)
    thinking_token_budget: fields.Budget = -1

    @property
    def logprobs(self) -> bool:
        return self.top_logprobs > 0 or "message.output_text.logprobs" in self.include

    def chat(self) -> ChatRequest:
        """The same as a request for chat. Raises Unreadable with the item that cannot be read."""
        same = ("model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "stop", "deadline",
                "fallback", "parallel_tool_calls", "thinking_token_budget")  # fmt: skip
        asked = {name: getattr(self, name) for name in same if name in self.model_fields_set}
        asked |= {"logprobs": self.logprobs, "top_logprobs": self.top_logprobs, "max_tokens": self.max_output_tokens}
        asked |= {"messages": self._messages(), "reasoning_effort": self.reasoning.effort}
        asked |= {"tools": self.tools, "tool_choice": self.flat_choice(), "response_format": self.text.format}
        return ChatRequest.model_validate(asked)

    def flat_tools(self) -> list[dict[str, Any]]:
        """The tools as this API writes them."""
        return [{"type": "function", **tool.function.model_dump()} for tool in self.tools]

    def flat_choice(self) -> Any:
        choice = self.tool_choice
        return {"type": "function", "name": choice.name} if isinstance(choice, fields.NamedFunction) else choice

    def flat_format(self) -> dict[str, Any]:
        wanted = self.text.format
        told = {"strict": True, **wanted.told} if wanted and wanted.told else {}
        return {"type": wanted.type if wanted else "text", **told}

    def _messages(self) -> list[dict[str, Any]]:
        """The items as messages: what the model thought and called goes into the message it belongs to."""
        made = [{"role": "developer", "content": self.instructions}] if self.instructions else []
        thinking = ""
        for n, item in enumerate(self.input):
            where, kind = f"input[{n}]", item.get("type") or ("message" if "role" in item else None)
            if kind == "reasoning":
                thinking += _thought(where, item)
                continue
            read = _read(where, kind, item)
            if thinking and read["role"] == "assistant":
                read["thinking"] = thinking
            if kind == "function_call" and made and made[-1]["role"] == "assistant":
                read = _joined_turn(made.pop(), read)
            made.append(read)
            thinking = ""
        if not made:
            raise Unreadable("input", "holds no message: nothing is asked.")
        return made


def _read(where: str, kind: str | None, item: dict[str, Any]) -> dict[str, Any]:
    """An item as a message of chat."""
    if kind == "message":
        return message(where, item)
    if kind == "function_call":
        return _called(where, item)
    if kind == "function_call_output":
        return message(where, {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
    known = "message, reasoning, function_call or function_call_output"
    raise Unreadable(f"{where}.type", f"cannot be {kind!r}: it is {known}.")


def _joined_turn(said: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """A call joins what was said and called before it in the same turn."""
    thoughts = [message["thinking"] for message in (said, call) if message.get("thinking")]
    thinking = {"thinking": "\n\n".join(thoughts)} if thoughts else {}
    return {**said, **thinking, "tool_calls": [*said.get("tool_calls", []), *call["tool_calls"]]}


def _called(where: str, item: dict[str, Any]) -> dict[str, Any]:
    call = {"id": item.get("call_id"), "function": {"name": item.get("name"), "arguments": item.get("arguments")}}
    return message(where, {"role": "assistant", "tool_calls": [call]})


def _thought(where: str, item: dict[str, Any]) -> str:
    """The text of a reasoning item: what was thought, or its summary where that is all there is."""
    parts = item.get("content") or item.get("summary") or []
    if isinstance(parts, list):
        parts = [{**part, "type": "text"} if _is_thought(part) else part for part in parts]
    return joined(f"{where}.content", parts)


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _REASONING_TEXTS
