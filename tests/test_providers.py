"""The tools' schemas as function declarations of OpenAI, Gemini and Anthropic, by the rules of each.

Clients pass the schemas on as they are, or change them as these functions do; a provider refuses the
whole request, or a client drops the tool, where a rule is broken.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client
from mcp.types import Tool

from soulkeep.app import build_server
from soulkeep.service.home import Home

Schema = dict[str, Any]

COMBINATIONS = ("anyOf", "oneOf", "allOf", "not", "if", "$ref")

# OpenAI, "Structured model outputs: supported schemas": what strict functions may say.
OPENAI_KEYWORDS = {
    *("type", "description", "enum", "properties", "required", "additionalProperties", "items"),
    *("minimum", "maximum", "pattern", "format", "minItems", "maxItems"),
}
OPENAI_MOST_PROPERTIES, OPENAI_DEEPEST, OPENAI_MOST_ENUM_VALUES = 5_000, 10, 1_000

# Gemini API, the type Schema of "Function calling": a subset of OpenAPI 3.0.
GEMINI_KEYWORDS = {
    *("type", "format", "title", "description", "nullable", "enum", "items", "properties", "required"),
    *("minItems", "maxItems", "minimum", "maximum", "default", "example", "propertyOrdering"),
}
GEMINI_FORMATS = {"string": {"enum", "date-time"}, "integer": {"int32", "int64"}}

# Anthropic, "Implement tool use": tool names, and what may stand at the top of input_schema.
ANTHROPIC_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ANTHROPIC_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

MOST_DESCRIPTION = 1_024
"""Characters that OpenAI takes as the description of a function."""


def every(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all within it."""
    yield schema
    for field in schema.get("properties", {}).values():
        yield from every(field)
    if "items" in schema:
        yield from every(schema["items"])


def depth(schema: Schema) -> int:
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return 1 + max(map(depth, inner), default=0)


def openai_strict(schema: Schema) -> Schema:
    """Make every property required and give null to those that were not, as strict mode asks."""
    strict = {key: value for key, value in schema.items() if key != "default"}
    if schema["type"] == "object":
        fields = {name: openai_strict(field) for name, field in schema["properties"].items()}
        for name in fields.keys() - set(schema.get("required", ())):
            fields[name] = nullable(fields[name])
        strict |= {"properties": fields, "required": list(fields), "additionalProperties": False}
    elif schema["type"] == "array":
        strict["items"] = openai_strict(schema["items"])
    return strict


def nullable(schema: Schema) -> Schema:
    made = {**schema, "type": [schema["type"], "null"]}
    return {**made, "enum": [*schema["enum"], None]} if "enum" in schema else made


@pytest.fixture
async def tools(home: Home) -> list[Tool]:
    async with Client(build_server(home, tools_offered="full"), cache=None) as client:
        return (await client.list_tools()).tools


async def test_every_object_has_properties_and_every_enum_words(tools: list[Tool]) -> None:
    for tool in tools:
        for schema in every(tool.input_schema):
            assert schema["type"] in ("object", "array", "string", "integer", "boolean"), tool.name
            assert ("properties" in schema) == (schema["type"] == "object"), tool.name
            assert schema["type"] != "object" or schema["properties"], tool.name
            assert ("items" in schema) == (schema["type"] == "array"), tool.name
            assert set(schema.get("required", ())) <= set(schema.get("properties", ())), tool.name
            assert all(re.fullmatch("[a-z_]+", word) for word in schema.get("enum", ())), tool.name
            assert "default" not in schema or schema["default"] in schema.get(
                "enum", [schema["default"]]
            )


async def test_openai_takes_the_tools_in_strict_mode(tools: list[Tool]) -> None:
    for tool in tools:
        strict = openai_strict(tool.input_schema)
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name)
        assert tool.description
        assert len(tool.description) <= MOST_DESCRIPTION
        assert depth(strict) <= OPENAI_DEEPEST
        assert (
            sum(len(schema.get("properties", ())) for schema in every(strict)) <= OPENAI_MOST_PROPERTIES
        )
        words = [word for schema in every(strict) for word in schema.get("enum", ())]
        assert len(words) <= OPENAI_MOST_ENUM_VALUES
        for schema in every(strict):
            assert set(schema) <= OPENAI_KEYWORDS, tool.name
            if "properties" in schema:
                assert schema["properties"], "a bare object is refused"
                assert schema["additionalProperties"] is False
                assert schema["required"] == list(schema["properties"])


async def test_what_is_optional_has_a_word_for_none_or_may_be_null_in_strict_mode(
    tools: list[Tool],
) -> None:
    for tool in tools:
        for schema in every(tool.input_schema):
            for name in set(schema.get("properties", ())) - set(schema.get("required", ())):
                strict = openai_strict(schema)["properties"][name]
                assert strict["type"][1] == "null"
                assert "enum" not in strict or None in strict["enum"]


async def test_gemini_takes_the_tools(tools: list[Tool]) -> None:
    for tool in tools:
        assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}", tool.name)
        for schema in every(tool.input_schema):
            assert set(schema) <= GEMINI_KEYWORDS, tool.name
            assert not set(schema) & set(COMBINATIONS), tool.name
            assert isinstance(schema["type"], str), "a list of types is refused"
            if "enum" in schema:
                assert schema["type"] == "string"
                assert all(isinstance(word, str) and word for word in schema["enum"])
            if "format" in schema:
                assert schema["format"] in GEMINI_FORMATS[schema["type"]]
            assert "required" not in schema or schema["required"]


async def test_anthropic_takes_the_tools(tools: list[Tool]) -> None:
    for tool in tools:
        assert ANTHROPIC_NAME.fullmatch(tool.name)
        assert tool.description
        assert tool.input_schema["type"] == "object"
        assert not set(tool.input_schema) & set(COMBINATIONS), tool.name
        for schema in every(tool.input_schema):
            assert all(ANTHROPIC_PROPERTY.fullmatch(name) for name in schema.get("properties", ()))
