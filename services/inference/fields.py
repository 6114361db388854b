"""Fields that several requests have: how they are written, what they may be, and what is said of those that cannot be had."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from services.inference.grammar import ANY_OBJECT, Schema
from services.inference.json_schema import check_schema
from shared.harmony.encoder import ROWS
from shared.harmony.typescript import namespace

MOST_STOPS = 16  # OpenAI takes 4; clients of other servers send more
LONGEST_STOP = 500  # characters


def refuse(says: str) -> PydanticCustomError:
    """An error to raise in a validator: its message is `says`, as it stands."""
    return PydanticCustomError("refused", "{says}", {"says": says})


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise refuse("must be a text or a list of texts, none of them empty.")
    if len(stops) > MOST_STOPS:
        raise refuse(f"has {len(stops)} texts; at most {MOST_STOPS} are allowed.")
    if any(len(stop) > LONGEST_STOP for stop in stops):
        raise refuse(f"has a text of more than {LONGEST_STOP} characters: an answer cannot be held back so long.")
    return stops


def _logit_bias(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise refuse('must be an object that maps token ids to numbers, as {"1234": -100}.')
    for token, bias in value.items():
        if not str(token).isdecimal() or int(token) >= ROWS:
            raise refuse(f"has the key {token!r}: keys are token ids, from 0 to {ROWS - 1}.")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise refuse(f"is {bias!r} for token {token}: it must be a number from -100 to 100.")
    return value


Stop = Annotated[list[str], BeforeValidator(_stops)]
LogitBias = Annotated[dict[int, float], BeforeValidator(_logit_bias)]
Budget = Annotated[int, Field(ge=-1, description="most tokens of thinking, as in vLLM; -1 is without a cap")]
Deadline = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="seconds in which the answer must be complete")
]


# ---- the form of the answer


def _schema(value: Any) -> Any:
    if not isinstance(value, dict):
        raise refuse("must be a JSON schema, an object.")
    try:
        check_schema(value)
    except ValueError as problem:
        raise refuse(f"cannot be used {problem}") from None
    return value


class NamedSchema(BaseModel):
    """A JSON schema and what the model is told of it."""

    name: str = Field("answer", pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    wanted: Annotated[dict[str, Any], BeforeValidator(_schema)] = Field(alias="schema")


class Format(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def _is_there(cls, named: NamedSchema | None, info: ValidationInfo) -> NamedSchema | None:
        if named is None and info.data.get("type") == "json_schema":
            raise refuse("is missing: it has the name and the schema.")
        return named if info.data.get("type") == "json_schema" else None

    @property
    def answer(self) -> Schema | None:
        """What the final channel has to be; None leaves it free."""
        if self.json_schema:
            return self.json_schema.wanted
        return ANY_OBJECT if self.type == "json_object" else None

    @property
    def told(self) -> dict[str, Any] | None:
        """What the model is told of it, as a conversation has it under `response_format`."""
        named = self.json_schema
        return named and {"name": named.name, "description": named.description, "schema": named.wanted}


def _flat_format(value: Any) -> Any:
    """The Responses API has name and schema beside the type."""
    if isinstance(value, dict) and value.get("type") == "json_schema" and "schema" in value:
        return {"type": "json_schema", "json_schema": value}
    return value


ResponseFormat = Annotated[Format, BeforeValidator(_flat_format)]


# ---- tools


class Function(BaseModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_.:/-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def _shown(function: Function) -> Function:
    if function.strict and function.parameters:
        _schema(function.parameters)
    try:
        namespace([function.model_dump()])
    except (AttributeError, KeyError, TypeError, RecursionError):
        raise refuse("parameters is no JSON schema that can be shown to the model.") from None
    return function


class Tool(BaseModel):
    type: Literal["function"] = "function"
    function: Annotated[Function, AfterValidator(_shown)]


def _nested(value: Any) -> Any:
    """Name and the rest may stand beside the type, as in the Responses API."""
    if isinstance(value, dict) and value.get("type", "function") != "function":
        raise refuse(f"is of type {value['type']!r}: only functions can be called here.")
    if isinstance(value, dict) and "function" not in value:
        return {"type": "function", "function": value}
    return value


class NamedFunction(BaseModel):
    name: str


def _choice(value: Any) -> Any:
    if value in ("none", "auto", "required"):
        return value
    named = value.get("function", value) if isinstance(value, dict) and value.get("type") == "function" else None
    if not isinstance(named, dict) or not isinstance(named.get("name"), str):
        raise refuse('must be "none", "auto", "required" or {"type": "function", "function": {"name": …}}.')
    return {"name": named["name"]}


Tools = list[Annotated[Tool, BeforeValidator(_nested)]]
ToolChoice = Annotated[Literal["none", "auto", "required"] | NamedFunction, BeforeValidator(_choice)]


# ---- what cannot be had

_NOTHING = (None, False, "", [], {})
_LEAVE_OUT = "is not supported: leave it out, or send {harmless}."
_NO_SOUND = "asks for more than text, and this model reads and writes text only: leave it out."
_USE_FORMAT = "is not supported: send the schema as response_format, of type json_schema."
_NOT_HERE = "is not supported: leave it out."

# field: what may be sent because it asks for nothing, and what is said of anything else
SAMPLING: dict[str, tuple[tuple[Any, ...], str]] = {
    "frequency_penalty": ((0,), _LEAVE_OUT),
    "presence_penalty": ((0,), _LEAVE_OUT),
    "repetition_penalty": ((1,), _LEAVE_OUT),
    "best_of": ((1,), "is not supported: ask for several answers with n, and choose."),
    "min_tokens": ((0,), _LEAVE_OUT),
    "stop_token_ids": ((), "is not supported: name what is to end the answer in stop."),
    "bad_words": ((), "is not supported: use logit_bias."),
    "allowed_token_ids": ((), "is not supported: use logit_bias."),
    "use_beam_search": ((), _NOT_HERE),
    "prompt_logprobs": ((), _NOT_HERE),
    "structured_outputs": ((), _USE_FORMAT),
    "guided_json": ((), _USE_FORMAT),
    "guided_regex": ((), _USE_FORMAT),
    "guided_choice": ((), _USE_FORMAT),
    "guided_grammar": ((), _USE_FORMAT),
}
CHAT = {
    "ignore_eos": ((), "is for completions: a turn of chat has an end."),
    "modalities": ((["text"],), _NO_SOUND),
    "audio": ((), _NO_SOUND),
    "web_search_options": (
        (),
        "is not supported: this server does not search the web; give the model a tool that does.",
    ),
    "functions": ((), "is the old name of tools: send them there."),
    "function_call": (("none", "auto"), "is the old name of tool_choice: send it there."),
}
COMPLETION = {
    "suffix": ((), _NOT_HERE),
    "echo": ((), "is not supported: the prompt is not repeated in the answer."),
    "response_format": (({"type": "text"},), "is for chat: raw text is continued as it is."),
}
RESPONSES = {
    "previous_response_id": ((), "is not supported: answers are not kept here; send the whole conversation as input."),
    "conversation": ((), "is not supported: conversations are not kept here; send the whole one as input."),
    "background": ((), "is not supported: ask with stream to see the answer while it is made."),
    "prompt": ((), "is not supported: templates are not kept here; send instructions and input."),
}


def refusing(table: Mapping[str, tuple[tuple[Any, ...], str]]) -> type[BaseModel]:
    """A model whose fields, those of `table`, may be sent only as long as they ask for nothing."""

    def field(harmless: tuple[Any, ...], says: str) -> Any:
        def check(value: Any) -> None:
            if value not in (*_NOTHING, *harmless):
                raise refuse(says.format(harmless=harmless[0] if harmless else None))

        return Annotated[Any, AfterValidator(check)], None

    return create_model("Refusing", **{name: field(*entry) for name, entry in table.items()})  # type: ignore[call-overload]
