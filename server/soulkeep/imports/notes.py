"""Folders of Markdown: notes of any kind, those of basic-memory, and the workspace of an OpenClaw agent.

Each entry of a note (an item of a list, a paragraph) is a memory, as it is of MEMORY.md.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from typing import Any, Final

from soulkeep.documents import DOCUMENTS
from soulkeep.documents.blocks import front_matter_lines, split_lines
from soulkeep.documents.markdown import Entry, list_entries
from soulkeep.imports.reading import DocumentRecord, MemoryRecord, Reading, Record, Source
from soulkeep.imports.tables import as_list, kind_of
from soulkeep.models import MemoryType, NewMemory

PAGES: Final = (".md", ".markdown", ".mdown", ".txt")

_PAIR = re.compile(r"""["']?([^\s#:="'-][^:="']*?)["']?\s*[:=]\s*(.*)""")
_DAY = re.compile(r"(?:^|/)(\d{4})([-_])(\d{2})\2(\d{2})(?:[-_ ].*)?$")
_OBSERVATION = re.compile(r"\[([^\[\]]+)\]\s+(.*)", re.DOTALL)
_RELATION = re.compile(
    r"([^\[\]\n]*?)\s*\[\[([^\[\]|#\n]+)(?:[|#][^\[\]\n]*)?\]\](\s*\(.*\))?\s*", re.DOTALL
)
_TAG = re.compile(r"(?:^|(?<=\s))#([^\W\d][\w/-]*)")

_LINK = re.compile(r"(?<!!)\[\[([^\[\]|#^\n]+)")
_CODE = re.compile(r"(`{3,}|~{3,}).*?\1|`[^`\n]*`", re.DOTALL)

_ORIGINS = ("source", "url", "link", "author")
_DATES = ("created", "created_at", "date created", "date", "modified", "updated", "updated_at")

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
        yield from _note(source, name, reading, meant=_of_basic_memory)
    reading.leave("files that are no Markdown", len(source.sizes) - len(source.names(*PAGES)))


def read_workspace(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield an OpenClaw agent's SOUL.md, MEMORY.md and daily logs, and its other notes as memories."""
    tops = [name[: -len(one)] for name in source.sizes for one in DOCUMENTS if name.endswith(one)]
    # In an archive it may be in a folder.
    top = min((top for top in tops if top.endswith("/") or not top), key=len, default="")
    for name in source.names(*PAGES):
        own = name.removeprefix(top)
        document = next((one for one in DOCUMENTS if one == own), None)
        page = "MEMORY.md" if own == "memory.md" else document or _day_of(name)
        if isinstance(page, str) or (page and own.startswith("memory/")):
            text = source.page(name)
            if text:
                yield DocumentRecord(name, page, text)
        elif own in _ABOUT_AGENT or own.startswith("memory/"):
            yield from _note(source, name, reading)
        else:
            reading.leave(own if "/" not in own else "other pages")
    reading.leave("files that are no Markdown", len(source.sizes) - len(source.names(*PAGES)))


def _day_of(name: str) -> date | None:
    """Return the day that a page is called by, if any."""
    found = _DAY.search(name.rsplit(".", 1)[0])
    with suppress(ValueError):
        return date(int(found[1]), int(found[3]), int(found[4])) if found else None
    return None


def is_basic_memory(source: Source, looked_at: int = 20) -> bool:
    """Whether the first notes say where basic-memory keeps them."""
    pages = (source.page(name) for name in source.names(".md")[:looked_at])
    return any(page and "permalink" in front_matter(page) for page in pages)


def front_matter(text: str) -> dict[str, object]:
    """Return what stands at the head of a note, as texts and lists of them."""
    lines = split_lines(text)
    head = front_matter_lines(lines)
    first = lines[0].removeprefix("\ufeff")[:1] if head else ""
    with suppress(ValueError):  # of what is no TOML after all, the lines that can be read count
        if first == "{":
            return _flat(json.loads("".join(lines[:head]).removeprefix("\ufeff")))
        if first == "+":
            return _flat(tomllib.loads("".join(lines[1 : head - 1])))
    found: dict[str, object] = {}
    name = ""
    for line in lines[1 : max(head - 1, 1)]:
        bare = _COMMENT.sub("", line).strip()
        former, pair = found.get(name), _PAIR.fullmatch(bare)
        if bare.startswith("- ") and name:
            item = _value(bare[2:])
            more = item if isinstance(item, list) else [item]
            found[name] = [*(former if isinstance(former, list) else []), *more]
        elif pair and not line.startswith((" ", "\t")):
            name = pair[1].strip().lower()
            found[name] = "" if pair[2] in _BLOCKS else _value(pair[2])
        elif isinstance(former, str) and bare:  # it goes on
            found[name] = f"{former} {bare}".strip()
    return found


def _flat(data: Mapping[str, Any]) -> dict[str, object]:
    """Return values of JSON or TOML as texts and lists of them, with those of tables at the top."""
    tables = [value for value in data.values() if isinstance(value, dict)]
    return {
        name.lower(): [str(one) for one in value] if isinstance(value, list) else str(value)
        for part in (*tables, data)
        for name, value in part.items()
        if value not in (None, "", [], {}) and not isinstance(value, dict)
    }


_COMMENT = re.compile(r"(?:^|\s)#(?:\s.*)?$")
_BLOCKS = {sign + end for sign in ">|" for end in ("", "-", "+")}
"""What stands in the place of a text that follows in lines of its own."""
_IN_LIST = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]+)""")


def _value(written: str) -> str | list[str]:
    """Return what a value in YAML says, as a text or a list of them."""
    bare = written.strip()
    if bare.startswith("[") and bare.endswith("]") and not bare.startswith("[["):
        return [_unquoted(one) for one in _IN_LIST.findall(bare[1:-1])]
    return "" if bare.lower() in ("null", "~") else _unquoted(bare)


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


_Meant = tuple[str, MemoryType, str, list[str]]
"""What an entry says, its type, what it is about, and other words for that."""


def _plain(entry: Entry, title: str) -> _Meant:
    is_said = not entry.heading or entry.heading.strip().lower() == title.strip().lower()
    return entry.text, kind_of(entry.heading), title if is_said else f"{title}: {entry.heading}", []


def _of_basic_memory(entry: Entry, title: str) -> _Meant:
    """Return what `- [category] text` and `- verb [[Note]]` mean."""
    observation, relation = _OBSERVATION.fullmatch(entry.text), _RELATION.fullmatch(entry.text)
    if observation and observation[1].strip(" xX-"):  # else it is the box of a task
        category = observation[1].strip()
        return observation[2], kind_of(category), title, [category]
    if relation:
        verb = relation[1].replace("_", " ") or "relates to"
        return f"{title} {verb} {relation[2]}{relation[3] or ''}", "fact", title, []
    return _plain(entry, title)


def _note(
    source: Source, name: str, reading: Reading, meant: Callable[[Entry, str], _Meant] = _plain
) -> Iterator[MemoryRecord]:
    text = source.page(name)
    if not text:
        return
    head = front_matter(text)
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    title = reading.text(head.pop("title", "")) or stem
    given = [tag for field in ("tags", "tag") for tag in as_list(head.pop(field, []))]
    tags = [tag.strip("#,") for one in given for tag in one.split()]  # no tag has a space
    # Of the note, as it says itself, perhaps as a link to a day's page.
    dates = [str(head.pop(field, "")).strip("[]") for field in _DATES]
    created = reading.moment(next(filter(None, dates), None)) or reading.moment(source.modified(name))
    day = _day_of(name)
    occurred = reading.moment(day.isoformat()) if day else None
    said = [head.pop(field, "") for field in _ORIGINS]
    origins = [one for value in said for one in (value if isinstance(value, list) else [value])]
    aliases = [alias for field in ("aliases", "alias") for alias in as_list(head.pop(field, []))]
    head.pop("type", None)
    for field, value in head.items():
        reading.leave(field, int(bool(value)))
    for entry in list_entries(text):
        content, kind, about, words = meant(entry, title)
        prose = _CODE.sub("", content)
        named = [*_TAG.findall(prose), *_LINK.findall(prose), *aliases]
        subject = reading.label(about, [*words, *tags, *named])
        memory = NewMemory(
            content=content,
            memory_type=kind,
            source=reading.label(name, origins),
            subject=subject,
            occurred_at=occurred,
            created_at=created,
        )
        yield MemoryRecord(f"{name}:{entry.first + 1}", memory)
