"""Folders of Markdown: notes of any kind, those of basic-memory, and the workspace of an OpenClaw agent.

Each entry of a note (an item of a list, a paragraph) is a memory, as it is of MEMORY.md.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Final

from soulkeep.documents import DOCUMENTS
from soulkeep.documents.blocks import front_matter_lines, split_lines
from soulkeep.documents.markdown import Entry, list_entries
from soulkeep.imports.reading import DocumentRecord, MemoryRecord, Reading, Record, Source
from soulkeep.imports.tables import as_list, kind_of
from soulkeep.models import NewMemory

PAGES: Final = (".md", ".markdown", ".mdown", ".txt")

_PAIR = re.compile(r"""["']?([^\s#:="'-][^:="']*?)["']?\s*[:=]\s*(.*)""")
_DAY = re.compile(r"(?:^|/)(\d{4}-\d{2}-\d{2})(?:[-_ ].*)?$")
_OBSERVATION = re.compile(r"\[([^\[\]]+)\]\s+(.*)", re.DOTALL)
_RELATION = re.compile(r"([^\[\]\n]*?)\s*\[\[([^\[\]\n]+)\]\](.*)", re.DOTALL)
_TAG = re.compile(r"(?:^|(?<=\s))#([^\W\d][\w/-]*)")

_ABOUT_AGENT = ("USER.md", "IDENTITY.md")
"""Pages of a workspace that state facts; those with instructions are for that program alone."""


def read_notes(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield an entry after another of all notes; names, tags and headings become subjects."""
    for name in source.names(*PAGES):
        yield from _note(source, name, reading)
    reading.leave("files that are no Markdown", len(source.sizes) - len(source.names(*PAGES)))


def read_basic_memory(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield the same of basic-memory's notes, with the categories and relations that it writes."""
    for name in source.names(*PAGES):
        for record in _note(source, name, reading):
            yield record._replace(memory=_as_meant(record.memory, reading))
    reading.leave("files that are no Markdown", len(source.sizes) - len(source.names(*PAGES)))


def read_workspace(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield an OpenClaw agent's SOUL.md, MEMORY.md and daily logs, and its other notes as memories."""
    top = _top(source)
    for name in source.names(*PAGES):
        own, day = name.removeprefix(top), _DAY.search(name.rsplit(".", 1)[0])
        document = next((one for one in DOCUMENTS if one == own), None)
        if own == "memory.md":
            document = "MEMORY.md"
        if document or (day and own.startswith("memory/")):
            text = source.page(name)
            if text:
                yield DocumentRecord(name, document or date.fromisoformat(day[1] if day else ""), text)
        elif own in _ABOUT_AGENT or own.startswith("memory/"):
            yield from _note(source, name, reading)
        else:
            reading.leave(own if "/" not in own else "other pages")
    reading.leave("files that are no Markdown", len(source.sizes) - len(source.names(*PAGES)))


def _top(source: Source) -> str:
    """Return the folder in an archive that the workspace is in, with a slash at its end."""
    tops = [name[: -len(one)] for name in source.sizes for one in DOCUMENTS if name.endswith(one)]
    return min((top for top in tops if top.endswith("/") or not top), key=len, default="")


def is_basic_memory(source: Source, looked_at: int = 20) -> bool:
    """Whether the first notes say where basic-memory keeps them."""
    pages = (source.page(name) for name in source.names(".md")[:looked_at])
    return any(page and "permalink" in front_matter(page)[0] for page in pages)


def front_matter(text: str) -> tuple[dict[str, object], int]:
    """Return what stands at the head of a note, as texts and lists, and how many lines it has."""
    lines = split_lines(text)
    head = front_matter_lines(lines)
    found: dict[str, object] = {}
    name = ""
    for line in lines[1 : max(head - 1, 1)]:
        bare = line.strip()
        if bare.startswith("- ") and name:
            former = found.get(name)
            found[name] = [*(former if isinstance(former, list) else []), _unquoted(bare[2:])]
        elif (pair := _PAIR.fullmatch(bare)) and not line.startswith((" ", "\t")):
            name, value = pair[1].strip().lower(), pair[2]
            is_list = value.startswith("[") and value.endswith("]")
            found[name] = (
                [_unquoted(one) for one in as_list(value[1:-1])] if is_list else _unquoted(value)
            )
    return found, head


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _note(source: Source, name: str, reading: Reading) -> Iterator[MemoryRecord]:
    text = source.page(name)
    if not text:
        return
    head, _ = front_matter(text)
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    title = reading.text(head.pop("title", "")) or stem
    tags = [tag.lstrip("#") for field in ("tags", "tag") for tag in as_list(head.pop(field, []))]
    created = _moment_of(head, reading) or reading.moment(source.modified(name))
    day = _DAY.search(name.rsplit(".", 1)[0])
    occurred = reading.moment(day[1]) if day else None
    head.pop("type", None)
    for field, value in head.items():
        reading.leave(field, int(bool(value)))
    for entry in list_entries(text):
        yield MemoryRecord(
            source.place(name, entry.first + 1),
            NewMemory(
                content=entry.text,
                memory_type=kind_of(entry.heading),
                source=reading.label(name),
                subject=_subject(title, entry, tags, reading),
                occurred_at=occurred,
                created_at=created,
            ),
        )


def _subject(title: str, entry: Entry, tags: list[str], reading: Reading) -> str | None:
    is_said = not entry.heading or entry.heading.strip().lower() == title.strip().lower()
    return reading.label(
        title if is_said else f"{title}: {entry.heading}", [*tags, *_TAG.findall(entry.text)]
    )


def _moment_of(head: dict[str, object], reading: Reading) -> str | None:
    """Return when a note was made, as it says itself."""
    found = None
    for field in ("created", "created_at", "date created", "date", "modified", "updated", "updated_at"):
        value = head.pop(field, None)
        if found is None and value:
            found = reading.moment(value)
    return found


def _as_meant(memory: NewMemory, reading: Reading) -> NewMemory:
    """Return an entry of basic-memory without its marks: `[category] text`, or `verb [[Note]]`."""
    title = (memory.subject or "").split(":")[0].split(" (")[0]
    if observation := _OBSERVATION.fullmatch(memory.content):
        category = observation[1].strip()
        if category.strip(" xX-"):  # else the box of a task
            subject = reading.label(title, [category, *_TAG.findall(observation[2])])
            return replace(
                memory, content=observation[2], memory_type=kind_of(category), subject=subject
            )
    if (relation := _RELATION.fullmatch(memory.content)) and relation[1]:
        content = f"{title} {relation[1].replace('_', ' ')} {relation[2]}{relation[3]}"
        return replace(memory, content=content, subject=title)
    return memory
