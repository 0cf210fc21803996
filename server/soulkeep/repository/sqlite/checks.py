"""Proof that a store is whole, and making what is derived anew where it is not.

SQLite checks itself; every derived row is held against its memory.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from soulkeep.errors import StoreCorruptError
from soulkeep.models import Fault
from soulkeep.repository import ROWS
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.full_text import fts_text
from soulkeep.repository.sqlite.ledger import THREAD_KEY
from soulkeep.repository.sqlite.schema import (
    MESSAGES_FTS,
    NEXT_VECTORS,
    NEXT_VECTORS_BY_ID,
    VEC_MEMORIES,
    WORDS_FTS,
)
from soulkeep.repository.sqlite.vectors import DIMENSIONS
from soulkeep.wording import agreeing, counted

SOURCES = {name: name for name in ROWS} | {
    # The shadow tables are what the virtual ones are made of, and are counted without reading vectors.
    "vectors": "vec_memories_rowids",
    "full-text entries": "memories_fts_docsize",
}

_REINDEX = "run `soulkeep reindex`, which builds the search indexes anew from the memories"
_RESTORE = "run `soulkeep restore` with a backup that `soulkeep backups` lists"
_REPAIR = "run `soulkeep doctor --repair`"

_SAMPLE = 20
_SHORT = 500
"""Of so many texts of up to so many characters, spread over all, every word is looked up."""


class _FullText(NamedTuple):
    """A full-text index, and SQL for the id and text of each row that it should hold."""

    fault: str
    table: str
    texts: str
    source: str
    noun: str


_FULL_TEXTS = (
    _FullText(
        fault="full text",
        table="memories_fts",
        texts="SELECT id, content FROM memories",
        source="memories",
        noun="memory",
    ),
    _FullText(
        fault="full text of messages",
        table="messages_fts",
        texts="SELECT m.id, m.content FROM sessions AS s JOIN messages AS m ON m.session_id = s.id"
        f" WHERE s.session_key GLOB '{THREAD_KEY}*'",
        source="messages",
        noun="message",
    ),
)


def count_rows(database: Database) -> dict[str, int]:
    """Count the rows of each canonical table, of the vectors and of the full-text index."""
    return {
        name: database.query(f"SELECT count(*) FROM {source}")[0][0] for name, source in SOURCES.items()
    }


def find_faults(database: Database, *, vectors_expected: bool) -> list[Fault]:
    """Return everything that is wrong with the store; an empty list means it is whole.

    Exactly one vector (none, where the store's embedder makes none) and one full-text entry belong to
    each memory, and one full-text entry to each message of a thread.
    """
    with database.snapshot():
        for index in _FULL_TEXTS:
            # A look makes FTS5 forget what it read before others wrote; its own check does not, and
            # would take their words for damage. What is damaged, that check says better.
            with suppress(StoreCorruptError):
                database.query(f"SELECT rowid FROM {index.table} LIMIT 1")
        malformed = [row[0] for row in database.query("PRAGMA integrity_check(3)") if row != ("ok",)]
        faults = [
            *_integrity(malformed),
            *_foreign_keys(database),
            *_vectors(database, vectors_expected),
            *_lost_vectors(database),
            *_next_vectors(database),
        ]
        for index in _FULL_TEXTS:
            faults += _entries(database, index)
            # What SQLite found to be malformed already is not read again.
            if not any(index.table in found for found in malformed):
                faults += _words(database, index)
    return faults


def _integrity(malformed: list[str]) -> list[Fault]:
    derived = ("vec_memories", *(index.table for index in _FULL_TEXTS))
    return [
        Fault("integrity", found, _REPAIR if any(table in found for table in derived) else _RESTORE)
        for found in malformed
    ]


def _foreign_keys(database: Database) -> list[Fault]:
    rows = database.query('SELECT "table", count(*) FROM pragma_foreign_key_check GROUP BY 1')
    return [
        Fault(
            "foreign keys",
            f"{counted(count, 'row')} of {table} {refers} to rows that are gone",
            _RESTORE,
        )
        for table, count in rows
        for refers in [agreeing(count, "refers", "refer")]
    ]


def _vectors(database: Database, expected: bool) -> list[Fault]:
    missing, orphaned, surplus, waiting = database.query(
        "SELECT (SELECT count(*) FROM memories WHERE id NOT IN (SELECT rowid FROM vec_memories_rowids)"
        " AND id NOT IN (SELECT memory_id FROM pending_vectors)),"
        " (SELECT count(*) FROM vec_memories_rowids WHERE rowid NOT IN (SELECT id FROM memories)),"
        " (SELECT count(*) FROM vec_memories_rowids),"
        " (SELECT count(*) FROM pending_vectors WHERE memory_id NOT IN (SELECT id FROM memories)"
        " OR memory_id IN (SELECT rowid FROM vec_memories_rowids))"
    )[0]
    have = partial(agreeing, one="has", many="have")
    wait = agreeing(waiting, "waits", "wait")
    found = {
        f"{counted(missing, 'memory')} {have(missing)} no vector": missing and expected,
        f"{counted(surplus, 'vector')} {agreeing(surplus)} of no known embedder": surplus
        and not expected,
        f"{counted(orphaned, 'vector')} {have(orphaned)} no memory": orphaned and expected,
        f"{counted(waiting, 'memory')} {wait} in vain for a vector": waiting,
    }
    return [Fault("vectors", detail, _REINDEX) for detail, is_so in found.items() if is_so]


def _lost_vectors(database: Database) -> list[Fault]:
    """Find vectors that are listed, and whose chunk is gone, misshapen or has another in their place."""
    chunks = database.query(
        "SELECT c.chunk_id, c.size, c.validity, c.rowids FROM vec_memories_chunks AS c"
        " JOIN vec_memories_vector_chunks00 AS v ON v.rowid = c.chunk_id"
        " WHERE typeof(c.validity) = 'blob' AND length(c.validity) = c.size / 8"
        " AND typeof(c.rowids) = 'blob' AND length(c.rowids) = c.size * 8"
        " AND typeof(v.vectors) = 'blob' AND length(v.vectors) = c.size * ?",
        (DIMENSIONS * 4,),
    )
    held = {chunk_id: _held(*parts) for chunk_id, *parts in chunks}
    places = database.query("SELECT rowid, chunk_id, chunk_offset FROM vec_memories_rowids")
    lost = sum(held.get(chunk_id, {}).get(offset) != rowid for rowid, chunk_id, offset in places)
    return (
        [Fault("vectors", f"{counted(lost, 'vector')} {agreeing(lost)} listed and lost", _REPAIR)]
        if lost
        else []
    )


def _next_vectors(database: Database) -> list[Fault]:
    """Find vectors of the embedder that the store moves to without a memory."""
    orphaned = database.query(
        "SELECT count(*) FROM next_vectors WHERE memory_id NOT IN (SELECT id FROM memories)"
    )[0][0]
    detail = f"{counted(orphaned, 'vector')} to come {agreeing(orphaned, 'has', 'have')} no memory"
    return [Fault("vectors", detail, _REINDEX)] if orphaned else []


def _held(size: int, validity: bytes, rowids: bytes) -> dict[int, int]:
    """Return whose vector is at which offset of a chunk, as sqlite-vec writes it."""
    taken = int.from_bytes(validity, "little")
    return {
        offset: rowid
        for offset, rowid in enumerate(struct.unpack(f"<{size}q", rowids))
        if taken >> offset & 1
    }


def _entries(database: Database, index: _FullText) -> list[Fault]:
    missing, orphaned = database.query(
        f"SELECT (SELECT count(*) FROM ({index.texts}) WHERE id NOT IN"
        f" (SELECT id FROM {index.table}_docsize)),"
        f" (SELECT count(*) FROM {index.table}_docsize WHERE id NOT IN (SELECT id FROM {index.source}))"
    )[0]
    if missing or orphaned:
        texts = f"{counted(missing, index.noun)} {agreeing(missing)} not indexed"
        entries = f"{counted(orphaned, 'entry')} {agreeing(orphaned, 'has', 'have')} no {index.noun}"
        detail = f"{texts}, {entries}"
        return [Fault(index.fault, detail, _REINDEX)]
    return []


def _words(database: Database, index: _FullText) -> list[Fault]:
    """Find what FTS5's own check passes over: wrong sizes, and words that a search cannot reach."""
    if not _sizes_agree(database, index.table):
        return [Fault(index.fault, "the sizes of its entries do not add up", _REPAIR)]
    try:
        lost = sum(not _is_found(database, index.table, *text) for text in _sample(database, index))
    except StoreCorruptError as error:
        return [Fault(index.fault, error.detail, _REPAIR)]
    texts = counted(_SAMPLE, index.noun)
    detail = f"of {texts} looked up, {lost} {agreeing(lost)} not found by their words"
    return [Fault(index.fault, detail, _REPAIR)] if lost else []


def _sizes_agree(database: Database, table: str) -> bool:
    """Whether the numbers of words of the entries add up to the totals that FTS5 keeps."""
    sizes = [_varints(row[0]) for row in database.query(f"SELECT sz FROM {table}_docsize")]
    totals = database.query(f"SELECT block FROM {table}_data WHERE id = 1")
    added = [len(sizes), *map(sum, zip(*sizes, strict=False))]
    return not sizes or added == _varints(totals[0][0] if totals else None)


def _varints(blob: object) -> list[int]:
    """Return the numbers that FTS5 wrote: seven bits a byte, the highest first."""
    numbers, number = [], 0
    for byte in blob if isinstance(blob, bytes) else b"":
        number = number << 7 | byte & 127
        if byte < 128:
            numbers.append(number)
            number = 0
    return numbers


def _sample(database: Database, index: _FullText) -> list[tuple[int, str]]:
    """Return the ids and texts of some short entries that have words, spread over all."""
    rows = database.query(
        "SELECT id, content FROM (SELECT t.id, t.content, row_number() OVER (ORDER BY t.id) AS place,"
        f" count(*) OVER () AS entries FROM ({index.texts}) AS t JOIN {index.table}_docsize AS d"
        " ON d.id = t.id WHERE length(t.content) <= :short AND substr(d.sz, 1, 1) <> x'00')"
        " WHERE place % max(1, entries / :sample) = 0 LIMIT :sample",
        {"short": _SHORT, "sample": _SAMPLE},
    )
    return [(row[0], row[1]) for row in rows]


def _is_found(database: Database, table: str, entry: int, text: str) -> bool:
    # Words side by side all have to be there; one in which FTS5 knows no letters is passed over.
    words = " ".join(f'"{word}"' for word in dict.fromkeys(fts_text(text).split())) or '""'
    found = f"SELECT 1 FROM {table} WHERE {table} MATCH ? AND rowid = ?"
    return bool(database.query(found, (words, entry)))


_FULL_TEXT_PARTS = ("config", "data", "docsize", "idx")

_SEARCH_INDEXES = {
    "vec_memories": (VEC_MEMORIES, ("chunks", "rowids", "vector_chunks00", "info")),
    "memories_fts": (WORDS_FTS, _FULL_TEXT_PARTS),
    "messages_fts": (MESSAGES_FTS, _FULL_TEXT_PARTS),
}
"""How each search index is made, and the tables that it is made of."""


def recreate_indexes(database: Database) -> None:
    """Make the search indexes anew and empty, and SQLite's own from their tables; in a transaction."""
    for table, (statement, parts) in _SEARCH_INDEXES.items():
        _drop_index(database, table, parts)
        database.execute(statement)
    for statement in ("DROP TABLE IF EXISTS next_vectors", NEXT_VECTORS, NEXT_VECTORS_BY_ID):
        database.execute(statement)
    database.execute("REINDEX")


def _drop_index(database: Database, table: str, parts: Sequence[str]) -> None:
    """Drop a virtual table, whichever of its parts is damaged or gone, or the table itself."""
    if "config" in parts:
        # FTS5 refuses even to drop a table whose version it cannot read.
        database.execute(f"DROP TABLE IF EXISTS {table}_config")
        database.execute(f"CREATE TABLE {table}_config (k PRIMARY KEY, v) WITHOUT ROWID")
        database.execute(f"INSERT INTO {table}_config VALUES ('version', 4)")
    for part in parts:
        # Without one of its parts a virtual table cannot be dropped.
        database.execute(f"CREATE TABLE IF NOT EXISTS {table}_{part} (x)")
    for name in (table, *(f"{table}_{part}" for part in parts)):
        database.execute(f"DROP TABLE IF EXISTS {name}")
