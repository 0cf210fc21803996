"""Reading what other programs remember: which one it was is told by what it wrote.

A reader turns a source into records and knows no store; `service.imports` takes them into a home.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from soulkeep.errors import InvalidInputError, SourceError
from soulkeep.imports import chats, notes, own, tables
from soulkeep.imports.own import OWN_KEY
from soulkeep.imports.reading import (
    DocumentRecord,
    MemoryRecord,
    MessageRecord,
    Problem,
    Reading,
    Record,
    Rows,
    Source,
    ThreadRecord,
    opened,
)
from soulkeep.imports.values import first_values

__all__ = [
    "FORMATS",
    "OWN",
    "OWN_KEY",
    "DocumentRecord",
    "MemoryRecord",
    "MessageRecord",
    "Problem",
    "Reading",
    "Record",
    "Rows",
    "ThreadRecord",
    "open_records",
]

OWN = "soulkeep"
"""The name of the format of our own exports."""

_STORE, _SQLITE = "soulkeep.db", b"SQLite format 3\0"
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"(\xb5/\xfd")
"""How files begin that gzip, bzip2, xz, 7-Zip, RAR and zstd make."""
_PEEKED = 4_096


class Format(NamedTuple):
    """What a program writes, in words, and what reads it."""

    title: str
    read: Callable[[Source, Reading], Iterator[Record]]


FORMATS = {
    OWN: Format("export of soulkeep", own.read_export),
    "server-memory": Format(
        "memory.jsonl of the official memory server", tables.read_records("server-memory")
    ),
    "mcp-memory-service": Format("database or JSON of mcp-memory-service", tables.read_service),
    "basic-memory": Format("folder of basic-memory", notes.read_basic_memory),
    "openclaw": Format("workspace of an OpenClaw agent", notes.read_workspace),
    "mem0": Format("JSON export of mem0", tables.read_records("mem0")),
    "chatgpt": Format("data export of ChatGPT", chats.read_chatgpt),
    "claude": Format("data export of Claude", chats.read_claude),
    "markdown": Format("notes in Markdown", notes.read_notes),
    "json": Format("JSON with lists of records", tables.read_records("")),
    "jsonl": Format("a record in JSON on each line", tables.read_records("")),
    "csv": Format("a table with names in its first row", tables.read_csv),
}
"""What is understood, by the names that `--format` takes."""


@contextmanager
def open_records(
    path: Path, reading: Reading, named: str | None = None
) -> Iterator[tuple[str, Iterator[Record]]]:
    """Open a source; the block is handed the name of its format, and its records one by one.

    Raises:
        InvalidInputError: `named` is no name of a format.
        SourceError: It cannot be read, is a home of soulkeep, or nobody knows what it is.
    """
    if named is not None and named not in FORMATS:
        raise InvalidInputError("format", f"must be one of {', '.join(FORMATS)}")
    with opened(path, reading) as source:
        _leave_homes(source, reading)
        if not any(source.sizes.values()):
            left = reading.problems[0] if reading.problems else None
            problem = f"nothing in it can be read: {left.place} {left.reason}" if left else "it is empty"
            raise SourceError(path, problem, "name what the other program wrote")
        before = reading.problem_count, list(reading.problems), Counter(reading.not_kept)
        found = named or _recognised(source)
        # What is wrong with a file is told when it is read, not when it was looked at.
        reading.problem_count, reading.problems, reading.not_kept = before
        if found is None and source.is_file and _first(source).startswith(_PACKED):
            raise SourceError(path, "it is packed, and no .zip", "unpack it, and name what was in it")
        if found is None:
            known = "; ".join(f"{name}: {form.title}" for name, form in FORMATS.items())
            problem = f"nobody knows what this is. Understood are {known}"
            raise SourceError(path, problem, "say which of them with --format if it is one")
        reading.total = reading.total or sum(source.sizes.values())
        reading.done = 0
        yield found, FORMATS[found].read(source, reading)


def _leave_homes(source: Source, reading: Reading) -> None:
    """Pass over homes of soulkeep that are somewhere in a source.

    Raises:
        SourceError: It is one.
    """
    homes = [name[: -len(_STORE)] for name in source.sizes if f"/{name}".endswith(f"/{_STORE}")]
    source.sizes = {
        name: size for name, size in source.sizes.items() if not name.startswith(tuple(homes))
    }
    if homes and not source.sizes:
        raise SourceError(source.path, "it is a home of soulkeep", "use `soulkeep copy FROM TO`")
    for home in homes:
        reading.report(home, "is a home of soulkeep; use `soulkeep copy FROM TO`")


def _recognised(source: Source) -> str | None:
    names = set(source.sizes)
    if source.is_file:
        return _of_file(source, source.path.name)
    if chat := chats.conversation_files(source):
        return _of_file(source, chat[0])
    if source.names("projects.json", "memories.json") and source.names("users.json"):
        return "claude"
    bare = {name.rsplit("/", 1)[-1] for name in names}
    if own.ROWS_FILE in bare:
        return OWN
    has_logs = any("memory/" in name for name in names)
    if "SOUL.md" in bare or (has_logs and not bare.isdisjoint({"MEMORY.md", "AGENTS.md"})):
        return "openclaw"
    if notes.is_basic_memory(source):
        return "basic-memory"
    if source.names(*notes.PAGES):
        return "markdown"
    single = source.names(".db", ".sqlite", ".jsonl", ".json", ".csv", ".tsv")
    return next(filter(None, (_of_file(source, name) for name in single)), None)


def _first(source: Source, name: str = "") -> bytes:
    with source.stream(name or source.path.name) as stream:
        return stream.read(_PEEKED)


def _of_file(source: Source, name: str) -> str | None:
    """Return the format of a file by its first bytes and values; None where nobody knows it."""
    first = _first(source, name)
    if first.startswith(_SQLITE):
        return "mcp-memory-service"
    is_page = name.lower().endswith(notes.PAGES[:-1])
    if first.lstrip()[:1] in (b"[", b"{"):
        # The head of a page may be JSON, which Markdown follows.
        is_head = is_page and notes.front_matter(source.page(name) or "")
        return "markdown" if is_head else _of_json(source, name)
    if is_page:
        return "markdown"
    is_table = name.lower().endswith((".csv", ".tsv"))
    if tables.is_header(first.decode("utf-8", "replace").lstrip("\r\n"), is_table=is_table):
        return "csv"
    return "markdown" if name.lower().endswith(notes.PAGES) else None


_MARKS: Sequence[tuple[str, set[str], set[str]]] = (
    (OWN, {own.MARK}, set()),
    ("chatgpt", {"mapping"}, set()),
    ("claude", {"chat_messages"}, set()),
    ("claude", {"conversations_memory"}, set()),
    ("claude", {"uuid"}, {"prompt_template", "docs"}),
    ("server-memory", {"entityType", "observations"}, set()),
    ("server-memory", {"type"}, {"observations", "relationType"}),
    ("mcp-memory-service", {"content", "content_hash"}, set()),
    ("mem0", {"memory"}, {"id", "hash", "user_id", "agent_id"}),
)
"""For each format the fields that a record has, and those of which it has at least one."""


def _of_json(source: Source, name: str) -> str | None:
    is_lines, values = first_values(source, name)
    for _, value in values:
        names = value.keys() if isinstance(value, dict) else ()
        for form, needed, some in _MARKS:
            if needed.issubset(names) and (not some or not some.isdisjoint(names)):
                return form
    if not values and name in chats.conversation_files(source) and not source.is_file:
        return "claude" if source.names("users.json") else "chatgpt"
    return "jsonl" if is_lines else "json" if values else None
