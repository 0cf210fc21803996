"""JSON schemas as short as a client needs them, which carries them in every request: pure functions."""

from typing import Any

# What pydantic writes into schemas and no model needs: what breaks these rules is refused in words.
_DROPPED = frozenset({"title", "maxLength", "maxItems", "minimum", "maximum", "additionalProperties"})
_UNSAID: tuple[object, ...] = ("", None, [], 0, "any")
"""Defaults that stand for nothing given, False among them."""


def compact(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out what pydantic adds to a schema and a model has to read with every request.

    Definitions are put where they are used: clients that check answers follow references slowly.
    """
    definitions = schema.get("$defs", {})

    def shortened(part: Any) -> Any:
        if isinstance(part, list):
            return [shortened(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return shortened(definitions[part["$ref"].removeprefix("#/$defs/")])
        # Under "properties" the keys are names of fields, and one of those may well be `title`.
        return {
            key: {name: shortened(field) for name, field in value.items()}
            if key == "properties"
            else shortened(value)
            for key, value in part.items()
            if key != "$defs"
            and not (key in _DROPPED and not isinstance(value, dict))
            and not (key == "default" and value in _UNSAID)
        }

    compacted: dict[str, Any] = shortened(schema)
    return compacted


def outline(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the names of an answer's fields with their types, and no more: a client sees the rest.

    Nothing is required, for what is empty is left out of an answer; so nothing is null either.
    """
    return {
        "type": "object",
        "properties": {name: _typed(field) for name, field in schema["properties"].items()},
    }


def _typed(field: dict[str, Any]) -> dict[str, Any]:
    given = field["anyOf"][0] if "anyOf" in field else field
    return (
        {"type": "object"} if "$ref" in given else {k: given[k] for k in ("type", "enum") if k in given}
    )
