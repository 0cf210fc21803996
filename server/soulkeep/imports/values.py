"""JSON as a stream of values: what the largest export takes in memory is its largest conversation."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import IO, Any

from soulkeep.imports.reading import CHUNK, MAX_VALUE, Reading, Source

_STRUCTURE = re.compile(rb'["\[\]{}]')
_IN_STRING = re.compile(rb'"|\\.', re.DOTALL)
_SCALAR_END = re.compile(rb"[\s,\]}:]")
_LOOKED_AT = 3
_MAX_ALONE = 4 * 1024**2
_WITH_PARTS = {"mapping", "chat_messages", "docs", "observations"}
"""What a single record may have lists or objects of records under."""
_SPACE = re.compile(rb"\s*")


class BrokenJsonError(Exception):
    """The text is no JSON from here on."""


class JsonStream:
    """The values of a JSON text one by one: of an array, or of the arrays in an object.

    A value that is no JSON, or too large, is passed over if brackets and quotes tell where it ends.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer, self._at = bytearray(), 0
        self._scan, self._is_whole = 0, True

    def items(self) -> Iterator[tuple[str, int, bytes | None]]:
        """Yield the name of the array, the number in it from 0, and the text; None for a larger one.

        The name is empty for an array of the top; what stands beside arrays has the number -1.

        Raises:
            BrokenJsonError: The rest cannot be read.
        """
        opening = self._next()
        if opening == b"[":
            yield from self._array("")
        elif opening == b"{":
            while (sign := self._next()) != b"}":
                if sign == b",":
                    continue
                self._at -= 1
                name = _parsed(self._value())
                if not isinstance(name, str) or self._next() != b":":
                    raise BrokenJsonError("a name and a colon are missing")
                if self._next(behind=False) == b"[":
                    self._at += 1
                    yield from self._array(name)
                else:
                    yield name, -1, self._value()
        else:
            raise BrokenJsonError("it begins neither with [ nor with {")
        if self._buffer[self._at :].strip() or self._stream.read(CHUNK).strip():
            raise BrokenJsonError("more follows its end")

    def _array(self, name: str) -> Iterator[tuple[str, int, bytes | None]]:
        for number in count():
            while (sign := self._next()) == b",":
                pass
            if sign == b"]":
                return
            self._at -= 1
            yield name, number, self._value()
            if self._at > CHUNK:
                del self._buffer[: self._at]
                self._at = 0

    def _more(self) -> None:
        chunk = self._stream.read(CHUNK)
        self._buffer += chunk
        if not chunk:
            raise BrokenJsonError("it ends too early")

    def _next(self, *, behind: bool = True) -> bytes:
        """Return the next sign that is no space, and move behind it or before it."""
        while True:
            found = _SPACE.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._buffer):
                self._at += behind
                return bytes(self._buffer[self._at - behind : self._at - behind + 1])
            self._more()

    def _value(self) -> bytes | None:
        first = self._next(behind=False)
        self._scan, self._is_whole = self._at, True
        if first in b'"[{':
            depth, is_quoted = 0, False
            while is_quoted or depth or self._scan == self._at:
                sign = self._find(_IN_STRING if is_quoted else _STRUCTURE)
                if sign == b'"':
                    is_quoted = not is_quoted
                elif not is_quoted:
                    depth += 1 if sign in b"[{" else -1
        else:
            self._find(_SCALAR_END)
            self._scan -= 1
            if self._scan == self._at:
                raise BrokenJsonError("a value is missing")
        text = bytes(self._buffer[self._at : self._scan])
        self._at = self._scan
        return text if self._is_whole and len(text) <= MAX_VALUE else None

    def _find(self, form: re.Pattern[bytes]) -> bytes:
        """Return the next sign of a form, with the scan behind it."""
        while (found := form.search(self._buffer, self._scan)) is None:
            # A backslash at the end goes with what follows it.
            self._scan = max(self._scan, len(self._buffer) - 1)
            if self._scan - self._at > MAX_VALUE:
                del self._buffer[: self._scan]
                self._at, self._scan, self._is_whole = -1, 0, False
            self._more()
        self._scan = found.end()
        return found[0]


def _parsed(text: bytes | None) -> Any:
    """Return what a text says in JSON; None for what is none."""
    try:
        return None if text is None else json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _no_json(text: bytes) -> str:
    try:
        text.decode()
    except UnicodeDecodeError:
        return "is not UTF-8; save the file as UTF-8"
    return "is no JSON"


def _alone(source: Source, name: str) -> dict[str, Any] | None:
    """Return the record that a small file consists of, or records by names, under their places.

    None where a file has lists of records.
    """
    if source.sizes[name] > _MAX_ALONE:
        return None
    with source.stream(name) as stream:
        value = _parsed(stream.read())
    if not isinstance(value, dict):
        return None
    parts = list(value.values())
    if inner := _of_wrapper(value, name):
        return inner
    if parts and all(isinstance(one, dict) for one in parts):
        return {f"{name}:{key}": one for key, one in value.items()}
    says_something = any(isinstance(one, str) and one.strip() for one in parts)
    has_records = any(isinstance(one, dict) for part in parts if isinstance(part, list) for one in part)
    is_one = not _WITH_PARTS.isdisjoint(value) or (says_something and not has_records)
    return {name: value} if is_one else None


def _of_wrapper(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the records in lists one level deeper, as in `{"data": {"memories": [...]}}`, if any."""
    if any(isinstance(part, list) for part in value.values()):
        return {}
    return {
        f"{name}:{key}.{field}[{number}]": one
        for key, part in value.items()
        if isinstance(part, dict)
        for field, records in part.items()
        if isinstance(records, list) and any(isinstance(one, dict) for one in records)
        for number, one in enumerate(records)
    }


def json_values(source: Source, name: str, reading: Reading) -> Iterator[tuple[str, str, Any]]:
    """Yield the name of the array, the place and the value of each item of arrays in a file of JSON.

    What is broken or too large is reported, and what stands beside arrays counted. A file that is one
    record has that alone, or those in it by their names.
    """
    if (alone := _alone(source, name)) is not None:
        yield from (("", place, value) for place, value in alone.items())
        return
    with source.stream(name) as stream:
        array, number = "", -1
        try:
            for array, number, text in JsonStream(stream).items():
                place = f"{name}:{array}[{number}]" if number >= 0 else f"{name}:{array}"
                value = _parsed(text)
                if text is None:
                    reading.report(place, "is larger than 32 MiB")
                elif value is None and text != b"null":
                    reading.report(place, _no_json(text))
                elif number < 0:
                    reading.leave(array, int(isinstance(value, str | dict) and bool(value)))
                else:
                    yield array, place, value
        except BrokenJsonError as error:
            place = f"{name}:{array}[{number + 1}]"
            reading.report(place, f"is no JSON from here on: {error}")


def json_records(source: Source, name: str, reading: Reading) -> Iterator[tuple[str, str, Any]]:
    """Yield the same, and of a file with a value on each line each of them."""
    if not first_values(source, name)[0]:
        yield from json_values(source, name, reading)
        return
    for number, line in source.lines(name):
        place = f"{name}:{number}"
        value = _parsed(line) if line.strip() else {}
        if value is None:
            reading.report(place, _no_json(line))
        elif line.strip():
            yield "", place, value


def first_values(source: Source, name: str) -> tuple[bool, list[tuple[str, Any]]]:
    """Return whether each line of a file is a value, and its first values with their arrays."""
    with source.stream(name) as stream:
        lines = [line for _ in range(_LOOKED_AT) if (line := stream.readline(CHUNK)).strip()]
    # A longer line is cut, and then no value, which only the name can say that it is.
    values = [("", value) for line in lines if isinstance(value := _parsed(line), dict)]
    parts = list(values[0][1].values()) if values else []
    has_records = any(isinstance(one, dict) for part in parts if isinstance(part, list) for one in part)
    has_records |= parts != [] and all(isinstance(one, dict) for one in parts)
    has_records |= bool(values and _of_wrapper(values[0][1], name))
    is_first = bool(values) and _parsed(lines[0]) is not None
    is_object = has_records and len(lines) == 1
    if name.lower().endswith((".jsonl", ".ndjson")) or (is_first and not is_object):
        return True, values
    found = list[tuple[str, Any]]()
    if (alone := _alone(source, name)) is not None:
        return False, [("", value) for value in alone.values()][:_LOOKED_AT]
    with source.stream(name) as stream, suppress(BrokenJsonError):
        for array, number, text in JsonStream(stream).items():
            if number >= 0 and (value := _parsed(text)) is not None:
                found.append((array, value))
            if len(found) == _LOOKED_AT:
                break
    return False, found
