"""Records with named fields: JSON, JSON Lines, CSV, and the memory servers that keep such.

What a field means is told by its name, whatever program wrote it.
"""

import csv
import json
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unicodedata import normalize

from soulkeep.errors import SourceError
from soulkeep.imports.reading import (
    MemoryRecord,
    MessageRecord,
    Reading,
    Record,
    Rows,
    Source,
    ThreadRecord,
)
from soulkeep.imports.values import json_records
from soulkeep.models import MEMORY_TYPES, MESSAGE_ROLES, MemoryType, NewMemory, NewMessage

_MEANINGS: Mapping[str, Sequence[str]] = {
    "content": (
        "content",
        "text",
        "memory",
        "note",
        "fact",
        "observation",
        "body",
        "message",
        "statement",
        "data",
    ),
    "type": ("memory_type", "type", "kind"),
    "subject": ("subject", "about", "entity", "entity_name", "title", "name", "topic"),
    "tags": ("tags", "tag", "labels", "label", "keywords", "categories", "category"),
    "source": ("source", "origin", "url", "link", "file", "path"),
    "author": ("author", "user", "user_id", "actor_id", "agent_id", "agent", "app", "created_by"),
    "created": ("created_at", "created", "timestamp", "created_at_iso", "date", "time", "added_at"),
    "occurred": ("occurred_at", "happened_at", "event_date", "when"),
    "expires": ("expires_at", "expiration_date", "expires", "valid_until"),
    "thread": (
        "thread",
        "thread_id",
        "conversation_id",
        "conversation",
        "session_id",
        "run_id",
        "project",
    ),
    "role": ("role", "sender"),
}
"""The names that a field of each meaning may have, the likeliest first."""

_IN_OTHER_LANGUAGES = {
    "content": "inhalt notiz erinnerung contenu texte souvenir contenido texto nota recuerdo contenuto"
    " testo ricordo conteúdo inhoud tekst treść notatka innehåll metin текст содержание заметка"
    " 内容 文本 笔记 本文 テキスト メモ 내용 메모",
    "type": "typ tipo тип 类型 種類 유형",
    "subject": "thema betreff titel sujet titre asunto título tema oggetto titolo assunto onderwerp"
    " temat tytuł ämne тема 主题 标题 件名 題名 주제 제목",
    "tags": "schlagwörter stichwörter étiquettes etiquetas etichette etykiety etiketter теги"
    " 标签 タグ 태그",
    "source": "quelle fuente fonte bron źródło källa источник 来源 出典 출처",
    "author": "autor auteur autore автор 作者 作成者 작성자",
    "created": "datum erstellt erstellt_am fecha creado creado_el créé_le date_de_création creato_il"
    " criado_em aangemaakt utworzono skapad дата создано 日期 创建时间 日付 作成日 날짜",
}
"""The same as people name the columns of tables in other languages."""

_NAMES = {
    meaning: (*names, *_IN_OTHER_LANGUAGES.get(meaning, "").split())
    for meaning, names in _MEANINGS.items()
}
_MEANING_OF = {name: meaning for meaning, names in _NAMES.items() for name in names}
_RANKS = {name: rank for rank, name in enumerate(_MEANING_OF)}

_OF_MORE = ("payload", "metadata")
"""Fields that hold others."""

_WITHOUT_WORTH = {
    *("id", "uuid", "hash", "content_hash", "md5", "version", "org_id", "project_id", "app_id"),
    *("updated_at", "updated_at_iso", "created_at_iso", "updated", "structured_attributes", "object"),
}
"""Fields that say nothing outside of the program that wrote them, and when it last did so."""

_TYPES: Sequence[tuple[MemoryType, re.Pattern[str]]] = (
    ("decision", re.compile(r"deci(sion|ded)|choice", re.I)),
    ("preference", re.compile(r"prefer|\blikes?\b", re.I)),
    ("summary", re.compile(r"summar", re.I)),
)

_ROLES = {
    "human": "user",
    "ai": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
}


def kind_of(word: str) -> MemoryType:
    """Return the memory type that a word of another program means; fact for what is none of ours."""
    return next((kind for kind, form in _TYPES if form.search(word)), "fact")


def role_of(word: object) -> str | None:
    """Return the role of a message's author; None where the word means none."""
    role = _ROLES.get(str(word).lower(), str(word).lower())
    return role if role in MESSAGE_ROLES else None


def as_list(value: object) -> list[str]:
    """Return the words of a list, or of a text with commas, perhaps a list in JSON."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    words = (
        re.split("[,;|]", value) if isinstance(value, str) else value if isinstance(value, list) else ()
    )
    return [str(word).strip() for word in words]


class Fields:
    """Turns records with named fields into memories and messages; `origin` is what they come from."""

    def __init__(self, reading: Reading, origin: str) -> None:
        self._reading, self._origin = reading, origin
        self._threads = set[str]()
        self._messages = 0

    def records(self, place: str, given: object) -> Iterator[Record]:
        """Yield what one record says; what says nothing is reported."""
        reading = self._reading
        if isinstance(given, str):
            given = {"content": given}
        if not isinstance(given, dict):
            reading.report(place, "is no record with fields")
            return
        fields = self._by_meaning(given)
        content = reading.text(fields.get("content"))
        if not content:
            reading.report(place, f"has no text under {', '.join(_MEANINGS['content'][:4])} ...")
            return
        thread = reading.text(str(fields["thread"])) if fields.get("thread") else ""
        if thread and thread not in self._threads:
            self._threads.add(thread)
            created = reading.moment(fields.get("created"))
            yield ThreadRecord(place, thread, reading.label(thread) or thread, created)
        role = role_of(fields["role"]) if thread and fields.get("role") else None
        if role is None:
            yield MemoryRecord(place, self._memory(content, thread, fields))
        else:
            self._messages += 1
            created = reading.moment(fields.get("created"))
            key = str(given.get("id") or created or self._messages)
            yield MessageRecord(place, thread, key, NewMessage(role, content, created))

    def _memory(self, content: str, thread: str, fields: Mapping[str, Any]) -> NewMemory:
        reading, word = self._reading, self._reading.text(fields.get("type"))
        is_ours = word.lower() in MEMORY_TYPES
        author = [str(fields["author"])] if fields.get("author") else []
        source = reading.text(fields.get("source"))
        return NewMemory(
            content=content,
            memory_type=word.lower() if is_ours else kind_of(word),
            thread_id=thread or None,
            source=reading.label(source or self._origin, [*author, *([] if is_ours else [word])]),
            subject=reading.label(fields.get("subject"), as_list(fields.get("tags"))),
            occurred_at=reading.moment(fields.get("occurred")),
            expires_at=reading.moment(fields.get("expires"), is_end=True),
            created_at=reading.moment(fields.get("created")),
        )

    def _by_meaning(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields by what they mean; what has no place is counted under its name."""
        every = dict(given)
        for name in _OF_MORE:
            more = every.pop(name, None)
            if isinstance(more, str):
                with suppress(ValueError, RecursionError):
                    more = json.loads(more)
            if isinstance(more, dict):
                every = more | every
        named = {
            _field_name(name): value for name, value in every.items() if value not in (None, "", [], {})
        }
        found: dict[str, Any] = {}
        for name in sorted(named, key=lambda name: _RANKS.get(name, len(_RANKS))):
            meaning = _MEANING_OF.get(name)
            if meaning is not None and meaning not in found:
                found[meaning] = named[name]
            elif name not in _WITHOUT_WORTH:
                self._reading.leave(name)
        return found


@lru_cache(1_000)
def _field_name(name: str) -> str:
    return re.sub(r"[\s-]+", "_", normalize("NFC", name.strip().lower()))


def read_records(origin: str) -> Callable[[Source, Reading], Iterator[Record]]:
    """Return a reader of records in JSON: one on each line, or in lists at the top or in an object.

    Entities and relations of the official memory server may be among them.
    """

    def read(source: Source, reading: Reading) -> Iterator[Record]:
        fields = Fields(reading, origin)
        for name in source.names(".json", ".jsonl", ".ndjson") or list(source.sizes):
            for array, place, value in json_records(source, name, reading):
                is_of_graph = isinstance(value, dict) and (
                    array in _GRAPH or not _GRAPH_FIELDS.isdisjoint(value) or "entityType" in value
                )
                if is_of_graph:
                    yield from _of_graph({"type": _GRAPH.get(array), **value}, place, origin, reading)
                else:
                    yield from fields.records(place, value)

    return read


def is_header(text: str, *, is_table: bool) -> bool:
    """Whether a text begins with the names of a table, one of which is of a column that has a text.

    A single name is enough only for a file that `is_table` by its name.
    """
    lines = text.split("\n")[:2]
    columns = re.split("[,;\t|]", lines[_SIGN.fullmatch(lines[0]) is not None and len(lines) > 1])
    names = {_field_name(column.strip(" \"'\r")) for column in columns}
    return not names.isdisjoint(_NAMES["content"]) and (is_table or len(columns) > 1)


def _columns(header: str, sign: str) -> tuple[str, list[str]]:
    """Return what stands between the columns of a table, and their names; none where it has none."""
    counts = {one: header.count(one) for one in ",;\t|"}
    sign = sign or max(counts, key=counts.__getitem__)
    try:
        return sign, [name.strip() for name in next(csv.reader([header], delimiter=sign), [])]
    except csv.Error:  # a sign that ends a line, inside one
        return sign, []


def read_csv(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield what the rows of a table under a row of names say.

    Raises:
        SourceError: No column has a name for the text.
    """
    csv.field_size_limit(_MAX_CELL)
    for name in source.names(".csv", ".tsv", ".txt") or list(source.sizes):
        fields, lines = Fields(reading, ""), _decoded(source, name, reading)
        header = next((line for _, line in lines if line.strip()), "")
        sign = ""
        if _SIGN.fullmatch(header):
            sign, (_, header) = header[len("sep=")], next(lines, (0, ""))
        sign, columns = _columns(header, sign)
        if {_field_name(column) for column in columns}.isdisjoint(_NAMES["content"]):
            problem = f"no column is named {', '.join(_MEANINGS['content'][:3])} or the like"
            raise SourceError(source.path, problem, "name the column that has the text `content`")
        for number, row in _rows(lines, sign, name, reading):
            place = f"{name}:{number}"
            if len(row) > len(columns):
                reading.report(place, f"has {len(row)} cells under {len(columns)} names")
            elif any(row):
                yield from fields.records(place, dict(zip(columns, row, strict=False)))


def _rows(
    lines: Iterator[tuple[int, str]], sign: str, name: str, reading: Reading
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table with the lines that they begin in.

    A row whose quotes do not fit ends with its first line: what follows is read as if it were not there.
    """
    taken, again = list[tuple[int, str]](), deque[tuple[int, str]]()

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            taken.append(line)
            yield line[1]

    rows = csv.reader(feed(), delimiter=sign, strict=True)
    while True:
        taken.clear()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            reading.report(f"{name}:{taken[0][0]}", f"is no row of a table ({error})")
            again.extendleft(reversed(taken[1:]))
            rows = csv.reader(feed(), delimiter=sign, strict=True)
        else:
            yield taken[0][0], row


def _decoded(source: Source, name: str, reading: Reading) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers."""
    for number, line in source.lines(name):
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            reading.report(f"{name}:{number}", "is not UTF-8; save the file as UTF-8")


# Memory servers

_GRAPH = {"entities": "entity", "relations": "relation"}
_GRAPH_FIELDS = {"observations", "relationType"}


def _of_graph(value: object, place: str, origin: str, reading: Reading) -> Iterator[Record]:
    fields = value if isinstance(value, dict) else {}
    first, second = (
        fields.get("from", fields.get("source")),
        fields.get("to", fields.get("target", fields.get("destination"))),
    )
    kind = fields.get("relationType", fields.get("relationship", fields.get("relation")))
    observations = fields.get("observations", [] if "entityType" in fields else None)
    observations = [observations] if isinstance(observations, str) else observations
    if fields.get("type") == "entity" and isinstance(observations, list):
        subject, about = reading.label(fields.get("name")), fields.get("entityType")
        for number, observation in enumerate(observations):
            said = observation if isinstance(observation, dict) else {"content": observation}
            if content := reading.text(said.get("content", said.get("text"))):
                source = reading.label(origin, [about])
                created = reading.moment(said.get("created_at", said.get("createdAt")))
                memory = NewMemory(content, kind_of(str(about)), source=source, subject=subject)
                yield MemoryRecord(place, replace(memory, created_at=created))
            else:
                reading.report(f"{place}, observation {number + 1}", "is no text")
        if not observations:
            reading.leave("entities of which nothing is said")
    elif all(isinstance(one, str) and one.strip() for one in (first, second, kind)):
        content = reading.text(f"{first} {str(kind).replace('_', ' ')} {second}")
        yield MemoryRecord(place, NewMemory(content, source=origin, subject=reading.label(first)))
    else:
        reading.report(place, "is neither an entity with observations nor a relation")


_SIGN = re.compile(r"sep=.\s*", re.IGNORECASE)
"""A line that says what stands between columns, as Excel writes it."""

_MAX_CELL = 4 * 1024**2
"""Characters of one cell, so that a quote that is never closed does not take in a whole table."""

_MOST_ROWS = 2**32
"""So far is looked behind what is damaged, in larger and larger steps."""

_OF_MEMORIES = (
    *("content", "content_hash", "tags", "memory_type", "metadata", "created_at", "deleted_at"),
    *("superseded_by", "store"),
)


def read_service(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield the memories of mcp-memory-service, from its database or its export in JSON.

    Raises:
        SourceError: It cannot be read.
    """
    is_json = source.names(".json") and not source.names(".db", ".sqlite", ".sqlite3")
    yield from (read_records("mcp-memory-service") if is_json else _read_database)(source, reading)


def _read_database(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield the memories of its database, without those that were deleted there."""
    names = source.names(".db", ".sqlite", ".sqlite3") or list(source.sizes)
    # Beside the database there may be copies of it, in folders.
    name = min(names, key=lambda name: (name.count("/"), not name.endswith("sqlite_vec.db"), name))
    path = source.path if source.is_file else source.path / name
    fields = Fields(reading, "mcp-memory-service")
    if not path.is_file():
        raise SourceError(source.path, f"{name} in it is packed", "unpack it and name the database")
    reading.leave("other databases", len(names) - 1)
    _tell_if_cut_off(path, name, reading)
    with reading.open_database(path) as rows:
        columns = {column for (column,) in rows("SELECT name FROM pragma_table_info('memories')")}
        tables = {table for (table,) in rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if "memories" not in tables or not {"content", "content_hash"} <= columns:
            problem = "it has no memories as mcp-memory-service keeps them"
            raise SourceError(path, problem, "name its database, sqlite_vec.db")
        there = [column for column in _OF_MEMORIES if column in columns]
        for table, what in (
            ("memory_graph", "links between memories"),
            ("memory_embeddings_rowids", "embeddings"),
        ):
            if table in tables:
                with suppress(SourceError):  # the database is damaged there
                    reading.leave(what, next(rows(f"SELECT count(*) FROM {table}"))[0])  # noqa: S608 - of a constant
        count = 1
        with suppress(SourceError):
            ((count,),) = rows("SELECT count(*) FROM memories")
        each = (reading.total or 1) / max(count, 1)
        for number, row in enumerate(_rows_of(rows, there, name, reading)):
            texts = (cell and cell.decode("utf-8", "replace") for cell in row)
            value = dict(zip(there, texts, strict=True))
            reading.done = int(each * (number + 1))
            if value.pop("deleted_at", None) or value.pop("superseded_by", None):
                reading.leave("memories that were deleted or replaced there")
                continue
            if value.get("store") == "default":
                del value["store"]
            yield from fields.records(f"{name}:{value['content_hash']}", value)


def _tell_if_cut_off(path: Path, name: str, reading: Reading) -> None:
    """Report a database that has fewer pages than its first bytes say, where those are up to date."""
    with path.open("rb") as file:
        first = file.read(_DATABASE_HEADER.size).ljust(_DATABASE_HEADER.size, b"\0")
    page_size, change, pages, counted_at = _DATABASE_HEADER.unpack(first)
    if change == counted_at and path.stat().st_size < page_size * pages:
        reading.report(name, "is cut off; copy it again for what is missing")


_DATABASE_HEADER = struct.Struct(">16xH6xII60xI")
"""Of the first 96 bytes: the size of a page, the last change, how many pages, and as of which change."""


def _rows_of(
    rows: Rows, columns: Sequence[str], name: str, reading: Reading
) -> Iterator[Sequence[bytes | None]]:
    """Yield the rows of memories, of a damaged database those that can be read.

    Raises:
        SourceError: None can be.
    """
    # As bytes, since a text in a database may be none.
    read = ", ".join(f"CAST({column} AS BLOB)" for column in columns)
    last, step = 0, 0
    while step < _MOST_ROWS:
        try:
            for number, *row in rows(
                f"SELECT rowid, {read} FROM memories WHERE rowid > {last + step} ORDER BY rowid"  # noqa: S608
            ):
                last, step = number, 0
                yield row
        except SourceError as error:
            damage, step = error, 2 * step or 1
            if step == 1 and last:
                reading.report(f"{name}, after row {last}", "cannot be read; the database is damaged")
        else:
            break
    else:
        if not last:
            raise damage
