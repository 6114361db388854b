"""Conversations: kept, listed, searched, changed by merging, taken along as files and brought back."""

from typing import Any, Literal

from flask import Response, request
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import chat_files, chats
from services.dashboard.api.dataset_models import TokenList
from services.dashboard.api.models import Page, binary
from services.dashboard.api.paging import Paging, whole
from services.dashboard.chats import Changes, Chat
from services.dashboard.context import store
from services.dashboard.errors import Refusal, problem
from services.dashboard.intake import base_encoder
from shared.harmony import labels
from shared.schemas import Strict

api = APIBlueprint("chats", __name__, url_prefix="/api")
FILE = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


class ChatPath(BaseModel):
    chat_id: str


class ChatsQuery(Paging):
    q: str = Field("", max_length=500, description="a part of the title or of a message")


class ExportQuery(BaseModel):
    format: Literal["json", "markdown"] = Field("json", description="json has every branch, markdown the shown lines")


class ChatItem(BaseModel):
    id: str
    title: str
    models: list[str]
    created: str
    updated: str
    messages: int = Field(description="how many, on all branches")


class ChatPage(Page):
    items: list[ChatItem]


class TokensBody(Strict):
    ids: list[int] = Field(max_length=200_000)


@api.before_request
def larger() -> None:
    """A conversation may have more than other requests."""
    request.max_content_length = chats.MOST_BYTES


@api.get("/chats", responses={200: ChatPage, **problem()})
def list_chats(query: ChatsQuery) -> dict[str, Any]:
    """The conversations, the last changed first."""
    items, total = chats.page(store(), query.q.strip(), query.offset, query.limit)
    return whole(items, total, query)


@api.post("/chats", responses={201: Chat, **problem(409, 413, 507)})
def create_chat(body: Changes) -> tuple[dict[str, Any], int]:
    """Begin a conversation; without a title it is called by its first question."""
    return chats.create(store(), body), 201


@api.post("/chats/import", responses={201: Chat, **problem(400, 413, 507)}, openapi_extensions={"requestBody": FILE})
def import_chat() -> tuple[dict[str, Any], int]:
    """Bring a conversation back from what `export` gave, or from a JSON list of OpenAI's messages."""
    return chats.put(store(), chat_files.read(request.get_data())), 201


@api.get("/chats/<chat_id>", responses={200: Chat, **problem(400, 404)})
def read_chat(path: ChatPath) -> dict[str, Any]:
    """A conversation with all its branches."""
    return chats.read(store(), path.chat_id)


@api.patch("/chats/<chat_id>", responses={200: ChatItem, **problem(400, 404, 409, 413, 507)})
def change_chat(path: ChatPath, body: Changes) -> dict[str, Any]:
    """Merge messages into a conversation by their ids, replace its other fields, and take messages away."""
    chat = chats.change(store(), path.chat_id, body)
    return {**{key: chat[key] for key in ChatItem.model_fields}, "messages": len(chat["messages"])}


@api.delete("/chats/<chat_id>", responses={204: None, **problem(400, 404)})
def delete_chat(path: ChatPath) -> tuple[str, int]:
    """Delete a conversation."""
    chats.delete(store(), path.chat_id)
    return "", 204


@api.get(
    "/chats/<chat_id>/export",
    responses={200: binary("application/octet-stream", "the file"), **problem(400, 404)},
)
def export_chat(path: ChatPath, query: ExportQuery) -> Response:
    """A conversation as a file that `import` takes back."""
    chat = chats.read(store(), path.chat_id)
    text, ending = (chats.text(chat), "json") if query.format == "json" else (chat_files.markdown(chat), "md")
    response = Response(text, mimetype="application/octet-stream")
    response.headers.set("Content-Disposition", "attachment", filename=f"chat-{chat['id']}.{ending}")
    return response


@api.post("/tokens", responses={200: TokenList, **problem(400, 404, 413)})
def read_tokens(body: TokensBody) -> dict[str, Any]:
    """What token ids of the base model say: text, role and channel of each. Ids without a text have an empty one."""
    encoder = base_encoder()
    if any(not 0 <= id_ < 1 << 31 for id_ in body.ids):
        raise Refusal(422, "bad_request", "A token id is a whole number from 0 on.")
    found = zip(body.ids, encoder.tokens(body.ids), labels(body.ids, encoder), strict=True)
    return {
        "tokens": [
            {"id": id_, "text": text, "channel": label.channel, "role": label.role, "kind": label.kind}
            for id_, text, label in found
        ]
    }
