"""Proof that a store is whole, making anew what is not, and giving back the space of what was deleted.

SQLite checks itself; every derived row is held against its memory.

sqlite-vec keeps vectors in chunks of 1,024 and frees a chunk when its last vector is gone. So those of
sparse chunks are moved to the end, in transactions short enough for others to write in between.

SQLite leaves what was deleted in free pages and in its log, until the file is written anew by way of a
copy beside it. Its own VACUUM keeps its copy in the system's folder for temporary files, which may be
shared, small or on another disk. A copy that a killed process left is removed when the store is opened.
"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apsw

from soulkeep.errors import StoreBusyError, StoreCorruptError
from soulkeep.models import Fault
from soulkeep.progress import tell
from soulkeep.repository import ROWS
from soulkeep.repository.sqlite.connections import open_alone, translated
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.indexes import fts_text
from soulkeep.repository.sqlite.schema import (
    MESSAGES_FTS,
    NEXT_VECTORS,
    NEXT_VECTORS_BY_ID,
    VEC_MEMORIES,
    WORDS_FTS,
)
from soulkeep.repository.values import DIMENSIONS, THREAD_KEY
from soulkeep.wording import agreeing, counted

SOURCES = {name: name for name in ROWS} | {
    # The shadow tables are what the virtual ones are made of, and are counted without reading vectors.
    "vectors": "vec_memories_rowids",
    "full-text entries": "memories_fts_docsize",
}

_REINDEX = "run `soulkeep reindex`, which builds the search indexes anew from the memories"
_RESTORE = "run `soulkeep restore` with a backup that `soulkeep backups` lists"
_REPAIR = "run `soulkeep doctor --repair`"

_MEMORIES_SAYING = (
    "SELECT DISTINCT 'memories', m.id FROM json_each(?) AS said"
    " CROSS JOIN memories AS m ON instr(m.content, said.value)"
    " WHERE m.document IS NULL ORDER BY m.id"
)
_THREADS_SAYING = (
    f"SELECT DISTINCT 'threads', substr(s.session_key, {len(THREAD_KEY) + 1})"
    " FROM json_each(?) AS said CROSS JOIN messages AS m ON instr(m.content, said.value)"
    " JOIN sessions AS s ON s.id = m.session_id ORDER BY 2"
)
_ONCE_SAYING = (
    "SELECT DISTINCT r.kind, r.key FROM json_each(?) AS said CROSS JOIN changed_rows AS r"
    " ON instr(ifnull(r.before ->> 'content', r.before ->> 'system_prompt'), said.value)"
    " ORDER BY r.kind, r.key"
)

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

_FULL_TEXT_PARTS = ("config", "data", "docsize", "idx")

_SEARCH_INDEXES = {
    "vec_memories": (VEC_MEMORIES, ("chunks", "rowids", "vector_chunks00", "info")),
    "memories_fts": (WORDS_FTS, _FULL_TEXT_PARTS),
    "messages_fts": (MESSAGES_FTS, _FULL_TEXT_PARTS),
}
"""How each search index is made, and the tables that it is made of."""

SPARSE = 0.75
"""Chunks that are filled up to this share are emptied."""

WORTHWHILE = 1.5
"""Compaction pays when there are so many times as many places as vectors."""

_MOVED_AT_ONCE = 100
_PAGES_AT_ONCE = 500
_CHUNK = 1024

_ATTEMPTS = 10
_STEPS_BETWEEN_REPORTS = 20_000
"""SQLite's own steps, some ten milliseconds."""

_COPIED_AT_ONCE = 1_000


@dataclass(eq=False)
class Upkeep:
    """What can be asked of, and done to, a whole store."""

    _database: Database

    def count_rows(self) -> dict[str, int]:
        """Count the rows of each canonical table, of the vectors and of the full-text index."""
        counted_rows = (
            (name, self._database.query(f"SELECT count(*) FROM {source}"))
            for name, source in SOURCES.items()
        )
        return {name: rows[0][0] for name, rows in counted_rows}

    def news(self, since: tuple[int, int] | None) -> tuple[tuple[int, int], set[str], bool]:
        """Return where events and changes end, the names of new events, and whether threads changed."""
        # The end first: what is added meanwhile is better told twice than never.
        last_change = self._database.query("SELECT ifnull(max(id), 0) FROM changes")[0][0]
        event, change = since or (0, last_change)
        last_event, names = self._database.query(
            "SELECT ifnull(max(id), 0), json_group_array(DISTINCT event) FILTER (WHERE id > ?)"
            " FROM audit_log",
            (event,),
        )[0]
        threads = self._database.query(
            "SELECT 1 FROM changed_rows AS r LEFT JOIN threads AS t ON t.id = r.key"
            " WHERE r.change_id > ? AND r.kind = 'threads' AND (r.before IS NULL OR t.id IS NULL"
            " OR t.title IS NOT r.before ->> 'title' OR t.archived IS NOT r.before ->> 'archived')"
            " LIMIT 1",
            (change,),
        )
        return (last_event, last_change), set(json.loads(names)) if since else set(), bool(threads)

    def find_saying(self, texts: Sequence[str]) -> list[tuple[bool, str, str]]:
        """Return whether only its past does, kind and key of what holds one of the texts."""
        said = (json.dumps(list(texts)),)
        found = (
            (is_past, *row)
            for is_past, statement in (
                (False, _MEMORIES_SAYING),
                (False, _THREADS_SAYING),
                (True, _ONCE_SAYING),
            )
            for row in self._database.query(statement, said)
        )
        return [(is_past, kind, str(key)) for is_past, kind, key in found]

    def check(self, *, vectors_expected: bool) -> list[Fault]:
        """Return everything that is wrong with the store; an empty list means it is whole.

        Exactly one vector (none, where the store's embedder makes none) and one full-text entry belong
        to each memory, and one full-text entry to each message of a thread.
        """
        database, derived = self._database, ["vec_memories", *(index.table for index in _FULL_TEXTS)]
        with database.snapshot():
            for index in _FULL_TEXTS:
                # A look makes FTS5 forget what it read before others wrote; its own check does not, and
                # would take their words for damage. What is damaged, that check says better.
                with suppress(StoreCorruptError):
                    database.query(f"SELECT rowid FROM {index.table} LIMIT 1")
            malformed = [row[0] for row in database.query("PRAGMA integrity_check(3)") if row != ("ok",)]
            faults = [
                Fault("integrity", found, _REPAIR if any(t in found for t in derived) else _RESTORE)
                for found in malformed
            ]
            for table, count in database.query(
                'SELECT "table", count(*) FROM pragma_foreign_key_check GROUP BY 1'
            ):
                rows = f"{counted(count, 'row')} of {table} {agreeing(count, 'refers', 'refer')}"
                faults.append(Fault("foreign keys", f"{rows} to rows that are gone", _RESTORE))
            faults += _vectors(database, vectors_expected)
            for index in _FULL_TEXTS:
                faults += _entries(database, index)
                # What SQLite found to be malformed already is not read again.
                if not any(index.table in found for found in malformed):
                    faults += _words(database, index)
        return faults

    def recreate_indexes(self) -> None:
        """Make the search indexes anew and empty, and SQLite's own from tables; in a transaction."""
        execute = self._database.execute
        for table, (statement, parts) in _SEARCH_INDEXES.items():
            if "config" in parts:
                # FTS5 refuses even to drop a table whose version it cannot read.
                execute(f"DROP TABLE IF EXISTS {table}_config")
                execute(f"CREATE TABLE {table}_config (k PRIMARY KEY, v) WITHOUT ROWID")
                execute(f"INSERT INTO {table}_config VALUES ('version', 4)")
            for part in parts:
                # Without one of its parts a virtual table cannot be dropped.
                execute(f"CREATE TABLE IF NOT EXISTS {table}_{part} (x)")
            for name in (table, *(f"{table}_{part}" for part in parts)):
                execute(f"DROP TABLE IF EXISTS {name}")
            execute(statement)
        for statement in ("DROP TABLE IF EXISTS next_vectors", NEXT_VECTORS, NEXT_VECTORS_BY_ID):
            execute(statement)
        execute("REINDEX")

    def table_sizes(self) -> dict[str, int]:
        """Return how many bytes each table takes with its indexes, largest first; reads all of it."""
        rows = self._database.query(
            "SELECT CASE WHEN s.tbl_name LIKE 'vec_memories%' THEN 'vec_memories'"
            " WHEN s.tbl_name LIKE 'memories_fts%' THEN 'memories_fts'"
            " WHEN s.tbl_name LIKE 'messages_fts%' THEN 'messages_fts' ELSE s.tbl_name END,"
            " sum(d.pgsize) FROM dbstat('main', TRUE) AS d JOIN sqlite_schema AS s ON s.name = d.name"
            " GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return dict(rows)

    def wasted(self) -> int:
        """Return how many bytes the places of deleted vectors take; 0 where that is not worth while."""
        places, taken = self._database.query(
            "SELECT (SELECT ifnull(sum(size), 0) FROM vec_memories_chunks),"
            " (SELECT count(*) FROM vec_memories_rowids)"
        )[0]
        # One chunk is always there and may be as good as empty.
        is_wasteful = places > WORTHWHILE * taken + _CHUNK
        return (places - taken) * 4 * DIMENSIONS if is_wasteful else 0

    def tidy(self, *, waiting: bool = True) -> Iterator[int]:
        """Empty the sparse chunks and shrink the file; yield how many bytes each short step gave back.

        Nothing is lost by stopping between two steps. Ids and vectors stay what they are.

        Raises:
            StoreBusyError: Another process is writing, for long or while it is not to be waited for.
        """
        patience = nullcontext if waiting else self._database.without_waiting
        sparse = self._database.query(
            "SELECT c.chunk_id FROM vec_memories_chunks AS c LEFT JOIN"
            " (SELECT chunk_id, count(*) AS taken FROM vec_memories_rowids GROUP BY chunk_id) AS r"
            " ON r.chunk_id = c.chunk_id"
            " WHERE c.chunk_id < (SELECT max(chunk_id) FROM vec_memories_chunks)"
            " AND ifnull(r.taken, 0) <= :sparse * c.size ORDER BY r.taken, c.chunk_id",
            {"sparse": SPARSE},
        )
        moves = [partial(_move_some, self._database, chunk) for (chunk,) in sparse]
        for step in (*moves, partial(_free_some_pages, self._database)):
            while True:
                with patience():
                    freed = step()
                if freed is None:
                    break
                yield freed

    def erase(self) -> bool:
        """Write the file anew without anything that was deleted; return whether its log is empty too.

        Others cannot write meanwhile, and can read. It needs as much free space as the store takes,
        twice for a moment. While another process reads, the log stays as it is.

        Raises:
            StoreBusyError: Others keep writing.
            StoreFullError: The disk is full; the store is as it was.
        """
        tell("Merging the full-text indexes")
        for index in _FULL_TEXTS:
            with self._database.transaction():
                # Entries are marked as deleted; only a merge of the whole index takes their words out.
                self._database.execute(f"INSERT INTO {index.table} ({index.table}) VALUES ('optimize')")
        return erase_file(self._database)


def _vectors(database: Database, expected: bool) -> list[Fault]:
    missing, orphaned, surplus, waiting, to_come = database.query(
        "SELECT (SELECT count(*) FROM memories WHERE id NOT IN (SELECT rowid FROM vec_memories_rowids)"
        " AND id NOT IN (SELECT memory_id FROM pending_vectors)),"
        " (SELECT count(*) FROM vec_memories_rowids WHERE rowid NOT IN (SELECT id FROM memories)),"
        " (SELECT count(*) FROM vec_memories_rowids),"
        " (SELECT count(*) FROM pending_vectors WHERE memory_id NOT IN (SELECT id FROM memories)"
        " OR memory_id IN (SELECT rowid FROM vec_memories_rowids)),"
        " (SELECT count(*) FROM next_vectors WHERE memory_id NOT IN (SELECT id FROM memories))"
    )[0]
    lost, have = _count_lost(database), partial(agreeing, one="has", many="have")
    wait = agreeing(waiting, "waits", "wait")
    found = (
        (missing and expected, f"{counted(missing, 'memory')} {have(missing)} no vector", _REINDEX),
        (
            surplus and not expected,
            f"{counted(surplus, 'vector')} {agreeing(surplus)} of no known embedder",
            _REINDEX,
        ),
        (orphaned and expected, f"{counted(orphaned, 'vector')} {have(orphaned)} no memory", _REINDEX),
        (waiting, f"{counted(waiting, 'memory')} {wait} in vain for a vector", _REINDEX),
        (lost, f"{counted(lost, 'vector')} {agreeing(lost)} listed and lost", _REPAIR),
        (to_come, f"{counted(to_come, 'vector')} to come {have(to_come)} no memory", _REINDEX),
    )
    return [Fault("vectors", detail, remedy) for is_so, detail, remedy in found if is_so]


def _count_lost(database: Database) -> int:
    """Count listed vectors whose chunk is gone, misshapen or has another in their place."""
    chunks = database.query(
        "SELECT c.chunk_id, c.size, c.validity, c.rowids FROM vec_memories_chunks AS c"
        " JOIN vec_memories_vector_chunks00 AS v ON v.rowid = c.chunk_id"
        " WHERE typeof(c.validity) = 'blob' AND length(c.validity) = c.size / 8"
        " AND typeof(c.rowids) = 'blob' AND length(c.rowids) = c.size * 8"
        " AND typeof(v.vectors) = 'blob' AND length(v.vectors) = c.size * ?",
        (DIMENSIONS * 4,),
    )
    held = set()
    for chunk_id, size, validity, rowids in chunks:
        taken = int.from_bytes(validity, "little")  # a bit for each place
        of_chunk = enumerate(struct.unpack(f"<{size}q", rowids))
        held |= {(rowid, chunk_id, offset) for offset, rowid in of_chunk if taken >> offset & 1}
    places = database.query("SELECT rowid, chunk_id, chunk_offset FROM vec_memories_rowids")
    return sum(place not in held for place in places)


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
    sizes = [_varints(row[0]) for row in database.query(f"SELECT sz FROM {index.table}_docsize")]
    totals = database.query(f"SELECT block FROM {index.table}_data WHERE id = 1")
    added = [len(sizes), *map(sum, zip(*sizes, strict=False))]
    if sizes and added != _varints(totals[0][0] if totals else None):
        return [Fault(index.fault, "the sizes of its entries do not add up", _REPAIR)]
    lost, found = 0, f"SELECT 1 FROM {index.table} WHERE {index.table} MATCH ? AND rowid = ?"
    try:
        for entry, text in database.query(
            "SELECT id, content FROM (SELECT t.id, t.content, row_number() OVER (ORDER BY t.id) AS"
            f" place, count(*) OVER () AS entries FROM ({index.texts}) AS t"
            f" JOIN {index.table}_docsize AS d ON d.id = t.id WHERE length(t.content) <= :short"
            " AND substr(d.sz, 1, 1) <> x'00')"
            " WHERE place % max(1, entries / :sample) = 0 LIMIT :sample",
            {"short": _SHORT, "sample": _SAMPLE},
        ):
            # Words side by side all have to be there; one in which FTS5 knows no letters is passed over.
            words = " ".join(f'"{word}"' for word in dict.fromkeys(fts_text(text).split())) or '""'
            lost += not database.query(found, (words, entry))
    except StoreCorruptError as error:
        return [Fault(index.fault, error.detail, _REPAIR)]
    texts = counted(_SAMPLE, index.noun)
    detail = f"of {texts} looked up, {lost} {agreeing(lost)} not found by their words"
    return [Fault(index.fault, detail, _REPAIR)] if lost else []


def _varints(blob: object) -> list[int]:
    """Return the numbers that FTS5 wrote: seven bits a byte, the highest first."""
    numbers, number = [], 0
    for byte in blob if isinstance(blob, bytes) else b"":
        number = number << 7 | byte & 127
        if byte < 128:
            numbers.append(number)
            number = 0
    return numbers


def _move_some(database: Database, chunk: int) -> int | None:
    """Move some vectors out of a chunk; None where there are none."""
    with database.transaction(durable=False):
        ids = database.query(
            "SELECT rowid FROM vec_memories_rowids WHERE chunk_id = ? LIMIT ?", (chunk, _MOVED_AT_ONCE)
        )
        if not ids:
            return None
        wanted = json.dumps([row[0] for row in ids])
        vectors = database.query(
            "SELECT v.memory_id, v.content_embedding FROM json_each(?) AS wanted"
            " CROSS JOIN vec_memories AS v WHERE v.memory_id = wanted.value",
            (wanted,),
        )
        database.execute_many("DELETE FROM vec_memories WHERE memory_id = ?", ids)
        database.execute_many(
            "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)", vectors
        )
    return 0


def _free_some_pages(database: Database) -> int | None:
    """Let the file end sooner; return by how many bytes, and None where that is all."""
    state = "SELECT freelist_count, auto_vacuum, page_size FROM pragma_freelist_count,"
    state += " pragma_auto_vacuum, pragma_page_size"
    before, has_map, page_size = database.execute(state)[0]
    if not (before and has_map):
        return None
    database.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
    return int((before - database.execute(state)[0][0]) * page_size) or None


def remove_leftover(database: Database) -> None:
    """Remove the copy that a killed process left, unless one is being made."""
    copy = _copy_path(database.path)
    if copy.exists():
        with suppress(StoreBusyError), database.without_waiting(), database.transaction(durable=False):
            _remove(copy)


def erase_file(database: Database) -> bool:
    """Write a file anew without anything that was deleted; return whether its log is empty too.

    Raises:
        StoreBusyError: Others keep writing.
        StoreFullError: The disk is full; the file is as it was.
    """
    for _ in range(_ATTEMPTS):
        if _rewritten(database):
            return database.empty_log()
    raise StoreBusyError(database.path)


def _rewritten(database: Database) -> bool:
    """Write the file anew; False where somebody wrote between the copy and its taking the place."""
    with translated(database.path), ExitStack() as stack:
        opened = partial(open_alone, database.path, "fullfsync = ON", "temp_store = MEMORY")
        reader, target = (stack.enter_context(closing(opened())) for _ in range(2))
        with database.transaction(durable=False):  # keeps others from writing
            copy = stack.enter_context(_copied(reader, _copy_path(database.path)))
            seen = reader.pragma("data_version")
            source = stack.enter_context(closing(apsw.Connection(str(copy))))
            backup = target.backup("main", source, "main")
            stack.callback(backup.close, force=True)
        backup.step(1)  # takes the write lock
        if reader.pragma("data_version") != seen:
            return False
        stack.enter_context(database.writing_back())
        while not backup.done:
            backup.step(_COPIED_AT_ONCE)
            tell("Putting it in place", 1 - backup.remaining / max(backup.page_count, 1))
    return True


@contextmanager
def _copied(reader: apsw.Connection, copy: Path) -> Iterator[Path]:
    """Give a copy of the store without anything that was deleted, gone after the block."""
    _remove(copy)
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        reader.set_progress_handler(_tell, _STEPS_BETWEEN_REPORTS)
        _tell()
        reader.execute("VACUUM INTO ?", (str(copy),))
        reader.set_progress_handler(None)
        yield copy
    finally:
        _remove(copy)


def _copy_path(store: Path) -> Path:
    return store.with_name(f".{store.name}.part")


def _remove(copy: Path) -> None:
    for suffix in ("", "-journal"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _tell() -> bool:
    tell("Writing the store anew")
    return False  # anything else would end the statement
