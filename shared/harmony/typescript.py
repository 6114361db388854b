"""Function tools are shown to the model as a TypeScript namespace, spelled as the chat template spells it.

The odd line breaks are the template's own; the model was trained on them, so they stay.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = {"number": "number", "integer": "number", "boolean": "boolean"}
_ELEMENTS = {"string": "string[]", "number": "number[]", "integer": "number[]", "boolean": "boolean[]"}


def namespace(tools: Sequence[Mapping[str, Any]]) -> str:
    """The `## functions` block of the developer message.

    Args:
        tools: OpenAI tools, `{"type": "function", "function": {...}}`, or the inner dicts alone.
    Source: macro `render_tool_namespace` of the chat template. A tool without description gets no comment line;
        the template fails there.
    """
    return (
        "## functions\n\nnamespace functions {\n\n"
        + "".join(_function(tool.get("function") or tool) for tool in tools)
        + "} // namespace functions"
    )


def _function(tool: Mapping[str, Any]) -> str:
    comment = f"// {tool['description']}\n" if tool.get("description") is not None else ""
    schema = tool.get("parameters") or {}
    properties = schema.get("properties")
    if not properties:
        return f"{comment}type {tool['name']} = () => any;\n\n"
    required = schema.get("required") or []
    lines = (_parameter(name, spec, name in required) for name, spec in properties.items())
    return f"{comment}type {tool['name']} = (_: {{\n{''.join(lines)}}}) => any;\n\n"


def _parameter(name: str, spec: Mapping[str, Any], required: bool) -> str:
    comment = f"// {spec['description']}\n" if spec.get("description") else ""
    default = ""
    if "default" in spec:
        if spec.get("enum"):
            default = f", // default: {spec['default']}"
        elif spec.get("oneOf"):
            default = f"// default: {spec['default']}"
        else:
            default = f", // default: {_json(spec['default'])}"
    return f"{comment}{name}{'' if required else '?'}: {_type(spec)}{default},\n"


def _type(spec: Mapping[str, Any]) -> str:
    kind = spec.get("type")
    if kind == "array":
        return _array(spec)
    if isinstance(kind, list | tuple) and kind:
        return " | ".join(map(str, kind))
    if spec.get("oneOf"):
        return _union(spec["oneOf"])
    if kind == "string":
        if spec.get("enum"):
            return '"' + '" | "'.join(map(str, spec["enum"])) + '"'
        return "string | null" if spec.get("nullable") else "string"
    if kind == "object":
        return _object(spec)
    return _PLAIN.get(kind or "", "any")


def _array(spec: Mapping[str, Any]) -> str:
    null = " | null" if spec.get("nullable") else ""
    items = spec.get("items")
    if not items:
        return "any[]" + null
    kind = items.get("type")
    if isinstance(kind, str) and kind in _ELEMENTS:
        return _ELEMENTS[kind] + null
    inner = _type(items)
    return ("any[]" if inner == "object | object" or len(inner) > 50 else inner + "[]") + null


def _union(variants: Sequence[Mapping[str, Any]]) -> str:
    # The template means to write "any" where objects are among them, but its flag does not outlive its Jinja loop.
    return " | \n".join(_variant(variant) for variant in variants)


def _variant(variant: Mapping[str, Any]) -> str:
    text = _type(variant)
    if variant.get("description"):
        text += f"// {variant['description']}"
    if "default" in variant:
        text += " " * 20 + f"// default: {_json(variant['default'])}"
    return text


def _object(spec: Mapping[str, Any]) -> str:
    if not spec.get("properties"):
        return "object"
    required = spec.get("required") or []
    fields = (
        f"{name}{'' if name in required else '?'}: \n{' ' * 16}{_type(inner)}"
        for name, inner in spec["properties"].items()
    )
    return "{\n" + ", ".join(fields) + "}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
