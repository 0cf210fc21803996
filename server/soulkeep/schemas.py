"""JSON schemas as short as a client needs them, which carries them in every request: pure functions."""

from typing import Any

# What pydantic writes into schemas and no model needs: what breaks these rules is refused in words.
IN_ARGUMENTS = frozenset(
    {"title", "maxLength", "maxItems", "minimum", "maximum", "additionalProperties"}
)
# All fields of an answer are always there, so none has to be called required.
IN_ANSWERS = frozenset({"title", "description", "required"})
_UNSAID: tuple[object, ...] = ("", None, [], 0, "any")
"""Defaults that stand for nothing given, False among them."""


def compact(schema: dict[str, Any], dropped: frozenset[str] = IN_ARGUMENTS) -> dict[str, Any]:
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
            and not (key in dropped and not isinstance(value, dict))
            and not (key == "default" and value in _UNSAID)
        }

    compacted: dict[str, Any] = shortened(schema)
    return compacted


def join_types(part: Any) -> None:
    """Write a choice with null as one list of types, which clients check in half the time."""
    if isinstance(part, list):
        for item in part:
            join_types(item)
    elif isinstance(part, dict):
        choices = part.get("anyOf", [])
        if len(choices) == 2 and choices[1] == {"type": "null"}:
            del part["anyOf"]
            part |= {**choices[0], "type": [choices[0]["type"], "null"]}
        for item in part.values():
            join_types(item)
