"""What callers send as arguments, read as it is meant, and the schemas that say it: pure functions.

Models and the programs that carry their calls fill what they leave out with null, "", 0, [] or "null",
send numbers, lists and objects as text, one item where a list is asked for, and arguments of their own.
What can only mean one thing is taken for it; anything else is left for validation to refuse.
"""

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from soulkeep.errors import HALF_A_PAIR, InvalidInputError, UnknownArgumentError

_LEFT_OUT = object()

_NOTHING = frozenset({"", "null", "none", "nil", "undefined"})
"""Words that stand for nothing where an id, a date, a number or one of several words is asked for."""
_UNNAMED = _NOTHING | {"any", "n/a"}
"""Words that stand for nothing where a name, a date or one of several words is asked for."""

_IDS_AND_DATES = frozenset(
    {"thread_id", "since", "until", "occurred_at", "expires_at", "created_at", "cursor"}
)
_LABELS = frozenset({"subject", "source"})
"""Texts too short to be meant where they say "null", in a list too; a text that is asked for is kept."""

_NUMBER = re.compile(r"#?([+-]?\d{1,40})(?:\.0*)?")
_NOUN = re.compile(
    r"\b(?:memory|change|message|prompt)[ \t]+(?=#?\d)|soulkeep://memories/(?=\d)", re.IGNORECASE
)
"""What stands before an id where answers name it, as that of a thread below."""
_THREAD = re.compile(r"^(?:thread[ \t]+|soulkeep://threads/|#)(?=\S+$)", re.IGNORECASE)
_OPENINGS = ("[", "{")
_BETWEEN_NUMBERS = re.compile(r"[,;\s]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_MISSPELT = 0.8
"""From this share of common letters on a name is a misspelt one: clients' own, such as `session_id`
beside `section`, stay below it."""

# What pydantic writes into schemas and no model needs: what breaks these rules is refused in words.
_DROPPED = frozenset({"title", "maxLength", "maxItems", "minimum", "maximum", "additionalProperties"})
_UNSAID: tuple[object, ...] = ("", None, [], 0, "any")
"""Defaults that stand for nothing given, False among them."""


_Schema = Mapping[str, Any]


@dataclass(slots=True)
class Sent:
    """The arguments of a call: those a tool takes, and the names of those that it does not."""

    arguments: dict[str, Any]
    ignored: list[str] = field(default_factory=list)


def read_arguments(tool: str, schema: _Schema, arguments: Mapping[str, Any]) -> Sent:
    """Return what a caller means by `arguments`; what stands for nothing given is left out.

    Args:
        tool: The tool's name, for errors.
        schema: The JSON schema of its arguments.
        arguments: As they were sent. Names that the tool does not know are ignored and reported.

    Raises:
        UnknownArgumentError: A name is so close to one the tool knows that it is a misspelt one.
        InvalidInputError: A truth value stands where a number is asked for, or a text holds half of a
            surrogate pair.
    """
    sent = Sent({})
    sent.arguments = _Reader(tool, schema.get("$defs", {}), sent.ignored).object_of(schema, arguments)
    return sent


@dataclass(slots=True)
class _Reader:
    """Reads the arguments of one call; `ignored` takes the names that the tool does not have."""

    tool: str
    definitions: _Schema
    ignored: list[str]

    def object_of(self, schema: _Schema, sent: Mapping[str, Any], within: str = "") -> dict[str, Any]:
        """Return the fields of an object that have a value and are known."""
        fields, required = schema.get("properties", {}), list(schema.get("required", ()))
        if "memories" in fields and "memories" not in sent:
            required.append("content")  # nothing comes instead, so it is meant, were it "null"
        read: dict[str, Any] = {}
        for name, value in sent.items():
            if name not in fields:
                if _SURROGATE.search(name) or "\ufffd" in name:  # or what a client put in its place
                    raise InvalidInputError("arguments", HALF_A_PAIR)
                if close := closest(name, list(fields)):
                    raise UnknownArgumentError(self.tool, within + name, close, list(fields))
                self.ignored.append(within + name)
                continue
            meant = self._value(fields[name], value, name, within + name, optional=name not in required)
            if meant is not _LEFT_OUT:
                read[name] = meant
        return read

    def _value(self, schema: _Schema, sent: Any, name: str, place: str, *, optional: bool) -> Any:
        schema = self._resolved(schema)
        if sent is None:
            return _LEFT_OUT
        if isinstance(sent, str) and _SURROGATE.search(sent):
            raise InvalidInputError(place, HALF_A_PAIR)
        if schema["type"] == "array":
            return self._list(schema, sent, name, place, optional=optional)
        if schema["type"] == "object":
            sent = parsed(sent)
            if schema.get("required") == ["content"] and _is_prose(sent):
                sent = {"content": sent}  # of what says no more, some send the text alone
            if isinstance(sent, Mapping):
                return self.object_of(schema, sent, f"{place}.")
            return _LEFT_OUT if _is_nothing(sent) or sent == 0 else sent
        if schema["type"] == "string" and "enum" not in schema:
            return _text(sent, name, optional=optional)
        return _scalar(schema, sent, place, optional=optional)

    def _resolved(self, schema: _Schema) -> _Schema:
        reference = schema.get("$ref")
        return self.definitions[reference.removeprefix("#/$defs/")] if reference else schema

    def _list(self, schema: _Schema, sent: Any, name: str, place: str, *, optional: bool) -> Any:
        items = self._resolved(schema.get("items", {}))
        sent = parsed(sent)
        if isinstance(sent, str) and _is_nothing(sent):
            sent = []
        elif isinstance(sent, str):
            if items.get("type") != "integer":
                return sent
            sent = _BETWEEN_NUMBERS.split(_NOUN.sub("", sent.strip(" []")))
        elif not isinstance(sent, list):
            sent = [sent]
        read = [
            self._value(items, item, name, f"{place}.{number}", optional=True)
            for number, item in enumerate(sent)
        ]
        kept = [item for item in read if item is not _LEFT_OUT]
        return _LEFT_OUT if optional and not kept else kept


def _is_nothing(sent: Any, words: Set[str] = _NOTHING) -> bool:
    return isinstance(sent, str) and sent.strip().casefold() in words


def _is_prose(sent: Any) -> bool:
    return isinstance(sent, str) and not _is_nothing(sent) and not sent.lstrip().startswith(_OPENINGS)


def _text(sent: Any, name: str, *, optional: bool) -> Any:
    is_short = name in _IDS_AND_DATES | _LABELS
    if not optional and not is_short:
        return sent
    read = _only_item(sent)
    # A text that is all blanks is a slip that its service names.
    is_blank = isinstance(read, str) and read.isspace() and not is_short
    if read is None or read == 0 or (_is_nothing(read) and not is_blank):
        return _LEFT_OUT
    if is_short and _is_nothing(read, _UNNAMED):
        return _LEFT_OUT
    if name not in _IDS_AND_DATES or not isinstance(read, str):
        return read if is_short else sent
    read = _THREAD.sub("", read.strip()) if name == "thread_id" else read.strip()
    return _LEFT_OUT if read == "0" else read


def _scalar(schema: _Schema, sent: Any, place: str, *, optional: bool) -> Any:
    """Read one of several words, a number or a truth value."""
    sent = _only_item(sent)
    if isinstance(sent, str):
        sent = sent.strip()
        if sent.casefold() in schema.get("enum", ()):
            return sent.casefold()
    if sent is None or _is_nothing(sent):
        return _LEFT_OUT
    if optional and "enum" in schema and (sent in (0, "0") or _is_nothing(sent, _UNNAMED)):
        return _LEFT_OUT
    if schema["type"] == "integer":
        sent = _number(sent, place)
        # Where a number has no least, such as a priority, 0 is as good as any other.
        return _LEFT_OUT if sent == 0 and optional and "minimum" in schema else sent
    return sent


def _only_item(sent: Any) -> Any:
    """Take one value out of a list that holds no more; an empty list or object holds nothing."""
    if isinstance(sent, list) and len(sent) == 1:
        return sent[0]
    return "" if isinstance(sent, list | dict) and not sent else sent


def _number(sent: Any, place: str) -> Any:
    if isinstance(sent, bool):
        raise InvalidInputError(place, "must be a whole number")
    if isinstance(sent, float) and sent.is_integer():
        return int(sent)
    if isinstance(sent, str) and (match := _NUMBER.fullmatch(_NOUN.sub("", sent.strip()))):
        return int(match[1])
    return sent


def parsed(sent: Any) -> Any:
    """Return the list or the object that a text is JSON of; anything else as it is."""
    if not isinstance(sent, str) or not sent.lstrip().startswith(_OPENINGS):
        return sent
    try:
        return json.loads(sent)
    except (ValueError, RecursionError):
        return sent


def given_thread(sent: str) -> str | None:
    """Return the id of the thread that a text names, or None where it stands for nothing."""
    return None if _is_nothing(sent, _UNNAMED) else _THREAD.sub("", sent.strip())


def closest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that `name` is a misspelt or shortened form of; None if it is its own."""
    words = _words(name)
    if name.startswith("_") or not words:
        return None
    likely: list[tuple[float, str]] = []
    for other in known:
        theirs = _words(other)
        if {"id"} != set(words) <= set(theirs):
            likely.append((1.0, other))
        elif ("id" in words) == ("id" in theirs):  # a name of an id compares with such only
            one, two = ("".join(word for word in some if word != "id") for some in (words, theirs))
            likely.append((SequenceMatcher(None, one, two).ratio(), other))
    share, other = max(likely, default=(0.0, ""))
    return other if share >= _MISSPELT else None


def _words(name: str) -> list[str]:
    """Return the words of a name, with `id` as the last one of every name of an id or of ids."""
    words = [word.lower() for word in _WORD.findall(name[:100])]
    if words and (stem := words[-1].removesuffix("s").removesuffix("id")) != words[-1].removesuffix("s"):
        words[-1:] = [stem, "id"] if stem else ["id"]
    return words


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
        "properties": {
            name: {"type": "object"}
            if "$ref" in (given := field["anyOf"][0] if "anyOf" in field else field)
            else {key: given[key] for key in ("type", "enum") if key in given}
            for name, field in schema["properties"].items()
        },
    }
