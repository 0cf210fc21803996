"""What `soulkeep export` wrote, read for a home that has memories of its own already."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from soulkeep.documents import DOCUMENTS
from soulkeep.imports.reading import (
    DocumentRecord,
    MemoryRecord,
    MessageRecord,
    Reading,
    Record,
    Source,
    ThreadRecord,
)
from soulkeep.imports.tables import role_of
from soulkeep.models import NewMemory, NewMessage

ROWS_FILE = "soulkeep.jsonl"
MARK = "soulkeep_export"
"""What the first line of such a file has the version of its form under."""

OWN_KEY = "soulkeep:"
"""Before the id of a thread: in another home it has the same."""

_OF_THREADS = "thread:"

_LEFT = {
    "global_prompts": "global prompts",
    "changes": "changes",
    "vec_memories": "vectors, which are made anew",
}


_TEXTS = ("title", "system_prompt", "content", "memory_type", "source", "subject")
_TIMES = ("created_at", "last_active_at", "occurred_at", "expires_at")


def read_export(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield threads, memories, messages and documents of an export; what else it has is counted."""
    threads = dict[str, str]()
    names = [name for name in source.sizes if name.endswith(ROWS_FILE)] or list(source.sizes)
    for number, line in source.lines(names[0]):
        place = f"{names[0]}:{number}"
        try:
            said = json.loads(line)
            row = said.get("row", {})
            if "document" in said:
                yield from _document(said, place, reading)
            elif said.get("table") == "sessions":
                threads[row["id"]] = row["session_key"].replace(_OF_THREADS, OWN_KEY, 1)
            else:
                yield from _of_row(said.get("table"), row, threads, place, reading)
        except (ValueError, KeyError, TypeError, AttributeError):
            reading.report(place, "is no line of an export")


def _of_row(
    table: object, row: Mapping[str, Any], threads: Mapping[str, str], place: str, reading: Reading
) -> Iterator[Record]:
    said = {name: _text(row[name], reading) for name in _TEXTS if name in row}
    times = {name: reading.moment(row.get(name)) for name in _TIMES}
    match table:
        case "threads":
            when = times["created_at"], times["last_active_at"]
            about = _needed(said["title"]), *when, said["system_prompt"], bool(row["archived"])
            yield ThreadRecord(place, OWN_KEY + row["id"], *about)
        case "memories" if row["document"] is None:
            thread = row["thread_id"] and OWN_KEY + row["thread_id"]
            memory = NewMemory(
                _needed(said["content"]),
                _needed(said["memory_type"]),
                thread,
                said["source"],
                said["subject"],
                occurred_at=times["occurred_at"],
                expires_at=times["expires_at"],
                created_at=times["created_at"],
            )
            yield MemoryRecord(place, memory)
        case "messages" if row["session_id"] in threads:
            role = role_of(row["role"])
            message = NewMessage(_needed(role), _needed(said["content"]), times["created_at"])
            yield MessageRecord(place, threads[row["session_id"]], str(row["id"]), message)
        case str() if table in _LEFT:
            reading.leave(_LEFT[table])


def _text(value: object, reading: Reading) -> str | None:
    """Return a text as a store takes it, or nothing.

    Raises:
        TypeError: It is something else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value and reading.cleaned(value)


def _needed(value: str | None) -> str:
    if value is None:
        raise TypeError
    return value


def _document(said: Mapping[str, Any], place: str, reading: Reading) -> Iterator[Record]:
    name, text = said["document"], said.get("text")
    if name.startswith("history/"):
        reading.leave("former texts of documents")
    elif text is None:
        reading.report(place, "is no text in UTF-8")
    elif name.startswith("daily/"):
        yield DocumentRecord(place, date.fromisoformat(name[len("daily/") : -len(".md")]), text)
    elif name in DOCUMENTS:
        yield DocumentRecord(place, name, text)
    else:
        reading.report(place, "is no document of a home")
