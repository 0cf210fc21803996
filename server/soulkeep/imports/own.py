"""What `soulkeep export` wrote, read for a home that has memories of its own already."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from soulkeep.imports.reading import (
    DocumentRecord,
    MemoryRecord,
    MessageRecord,
    Reading,
    Record,
    Source,
    ThreadRecord,
)
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
    match table:
        case "threads":
            times = row["created_at"], row["last_active_at"]
            about = row["system_prompt"], bool(row["archived"])
            yield ThreadRecord(place, OWN_KEY + row["id"], row["title"], *times, *about)
        case "memories" if row["document"] is None:
            thread = row["thread_id"] and OWN_KEY + row["thread_id"]
            said = {name: value for name, value in row.items() if name != "id"}
            yield MemoryRecord(place, NewMemory(**said | {"thread_id": thread}))
        case "messages" if row["session_id"] in threads:
            message = NewMessage(row["role"], row["content"], row["created_at"])
            yield MessageRecord(place, threads[row["session_id"]], str(row["id"]), message)
        case str() if table in _LEFT:
            reading.leave(_LEFT[table])


def _document(said: Mapping[str, Any], place: str, reading: Reading) -> Iterator[Record]:
    name, text = said["document"], said.get("text")
    if name.startswith("history/"):
        reading.leave("former texts of documents")
    elif text is None:
        reading.report(place, "is no text in UTF-8")
    elif name.startswith("daily/"):
        yield DocumentRecord(place, date.fromisoformat(name[len("daily/") : -len(".md")]), text)
    else:
        yield DocumentRecord(place, name, text)
