"""A response while it is made: the parser's deltas become items, and the events that tell of them."""

import json
import time
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from services.inference.protocol import new_id
from services.inference.responses import ResponsesRequest
from shared.harmony import Delta

Event = dict[str, Any]
_SEPARATOR = "\n\n"  # the parser's, between messages on a channel: here they are items of their own
_DELTA = {"reasoning": "response.reasoning_text", "message": "response.output_text"}
_ARGUMENTS = "response.function_call_arguments"


class ResponseStream:
    """Call `begin`, `feed` with each delta, then `finish` or `fail`; each gives the events to send, in order.

    Who wants no stream leaves the events alone: `response` is the whole as it stands.
    """

    def __init__(self, request: ResponsesRequest, effort: str) -> None:
        """`effort` is what the model was told."""
        self.output: list[dict[str, Any]] = []
        self.response = {**_frame(request, effort), "output": self.output}
        self._sent = 0
        self._open: tuple[str, str | int | None] | None = None
        self._spoken: set[str] = set()

    def begin(self) -> list[Event]:
        return [self._whole("response.created"), self._whole("response.in_progress")]

    def feed(self, delta: Delta, logprobs: Sequence[dict[str, Any]] = ()) -> list[Event]:
        """`logprobs` are those of the text's tokens, as `services.inference.logprobs.chat` writes them."""
        kind = _kind(delta)
        place = (kind, delta.channel if kind == "message" else delta.index)
        text, events = delta.arguments or delta.text, []
        if place != self._open:
            events += [*self._close("completed"), *self._begin_item(kind, delta)]
            self._open = place
            text = text.removeprefix(_SEPARATOR) if kind in self._spoken and not delta.recipient else text
        if text:
            self._spoken.add(kind)
            events.append(self._say(text, list(logprobs)))
        return events

    def finish(self, finish_reason: str, usage: dict[str, Any]) -> list[Event]:
        """`finish_reason` is chat's: "length" leaves the response incomplete."""
        status = "incomplete" if finish_reason == "length" else "completed"
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        events = self._close(status)
        self.response |= {"status": status, "incomplete_details": details, "usage": usage}
        return [*events, self._whole(f"response.{status}")]

    def fail(self, message: str) -> list[Event]:
        """When the answer broke off after its first event."""
        events = self._close("incomplete")
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        return [*events, self._whole("response.failed")]

    # ---- items

    def _begin_item(self, kind: str, delta: Delta) -> list[Event]:
        if kind == "function_call":
            called = {"call_id": new_id("call", "_"), "name": delta.recipient, "arguments": ""}
            self.output.append({"id": new_id("fc", "_"), "type": kind, "status": "in_progress", **called})
            return [self._item("added")]
        if kind == "reasoning":
            item, part = {"id": new_id("rs", "_"), "summary": []}, {"type": "reasoning_text", "text": ""}
        else:
            phase = "final_answer" if delta.channel == "final" else "commentary"
            item = {"id": new_id("msg", "_"), "role": "assistant", "phase": phase}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.output.append({**item, "type": kind, "status": "in_progress", "content": []})
        added = self._item("added")
        self.output[-1]["content"].append(part)
        return [added, self._part("added")]

    def _say(self, text: str, logprobs: list[dict[str, Any]]) -> Event:
        item = self.output[-1]
        if item["type"] == "function_call":
            item["arguments"] += text
            return self._of_item(f"{_ARGUMENTS}.delta", delta=text)
        item["content"][0]["text"] += text
        if item["type"] == "message":
            item["content"][0]["logprobs"] += logprobs
        more = {"logprobs": logprobs} if item["type"] == "message" else {}
        return self._of_item(f"{_DELTA[item['type']]}.delta", content_index=0, delta=text, **more)

    def _close(self, status: str) -> list[Event]:
        """The end of the item that is open, if one is."""
        if self._open is None:
            return []
        self._open, item = None, self.output[-1]
        item["status"] = status
        if item["type"] == "function_call":
            done = [self._of_item(f"{_ARGUMENTS}.done", name=item["name"], arguments=item["arguments"])]
        else:
            part = deepcopy(item["content"][0])
            said = {name: part[name] for name in ("text", "logprobs") if name in part}
            done = [self._of_item(f"{_DELTA[item['type']]}.done", content_index=0, **said), self._part("done")]
        return [*done, self._item("done")]

    # ---- events

    def _event(self, kind: str, **more: Any) -> Event:
        self._sent += 1
        return {"type": kind, "sequence_number": self._sent - 1, **more}

    def _whole(self, kind: str) -> Event:
        return self._event(kind, response=deepcopy(self.response))  # it goes on growing, as its items do

    def _of_item(self, kind: str, **more: Any) -> Event:
        return self._event(kind, item_id=self.output[-1]["id"], output_index=len(self.output) - 1, **more)

    def _item(self, what: str) -> Event:
        return self._event(
            f"response.output_item.{what}", output_index=len(self.output) - 1, item=deepcopy(self.output[-1])
        )

    def _part(self, what: str) -> Event:
        part = deepcopy(self.output[-1]["content"][0])
        return self._of_item(f"response.content_part.{what}", content_index=0, part=part)


def usage(prompt: int, cached: int, completion: int, reasoning: int) -> dict[str, Any]:
    """Tokens: of the prompt, of those taken from a cache, of the answer, of those thinking."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + completion,
    }


def sse(event: Event) -> str:
    """An event as it goes over the wire; this API sends no `[DONE]`."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


def _kind(delta: Delta) -> str:
    if delta.recipient is not None:
        return "function_call"
    return "reasoning" if delta.channel == "analysis" else "message"


def _frame(request: ResponsesRequest, effort: str) -> dict[str, Any]:
    """The response before anything is said: mostly what was asked."""
    return {
        "id": new_id("resp", "_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata,
        "model": request.model,
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": None,
        "reasoning": {"effort": effort, "summary": None},
        "store": False,
        "temperature": request.temperature,
        "text": {"format": request.flat_format()},
        "tool_choice": request.flat_choice(),
        "tools": request.flat_tools(),
        "top_logprobs": request.top_logprobs,
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": None,
    }
