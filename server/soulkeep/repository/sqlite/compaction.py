"""Giving back the space of what was deleted, and taking it out of the file itself.

sqlite-vec keeps vectors in chunks of 1,024 and frees a chunk when its last vector is gone. So those of
sparse chunks are moved to the end, in transactions short enough for others to write in between.

SQLite leaves what was deleted in free pages and in its log, until the file is written anew by way of a
copy beside it. Its own VACUUM keeps its copy in the system's folder for temporary files, which may be
shared, small or on another disk. A copy that a killed process left is removed when the store is opened.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apsw

from soulkeep.errors import StoreBusyError
from soulkeep.progress import tell
from soulkeep.repository.sqlite.connections import BUSY_TIMEOUT_S, translated
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.vectors import DIMENSIONS

SPARSE = 0.75
"""Chunks that are filled up to this share are emptied."""

WORTHWHILE = 1.5
"""Compaction pays when there are so many times as many places as vectors."""

_MOVED_AT_ONCE = 100
_PAGES_AT_ONCE = 500
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """How many places for vectors the store's chunks have, and how many of them are taken."""

    places: int
    taken: int

    @property
    def empty_bytes(self) -> int:
        """How many bytes the empty places take."""
        return (self.places - self.taken) * 4 * DIMENSIONS

    @property
    def is_wasteful(self) -> bool:
        """Whether compaction pays; one chunk is always there and may be as good as empty."""
        return self.places > WORTHWHILE * self.taken + _CHUNK


def measure_space(database: Database) -> VectorSpace:
    """Count the places for vectors and the vectors."""
    places, taken = database.query(
        "SELECT (SELECT ifnull(sum(size), 0) FROM vec_memories_chunks),"
        " (SELECT count(*) FROM vec_memories_rowids)"
    )[0]
    return VectorSpace(places, taken)


def table_sizes(database: Database) -> dict[str, int]:
    """Return how many bytes each table takes with its indexes, largest first; reads the whole store."""
    rows = database.query(
        "SELECT CASE WHEN s.tbl_name LIKE 'vec_memories%' THEN 'vec_memories'"
        " WHEN s.tbl_name LIKE 'memories_fts%' THEN 'memories_fts'"
        " WHEN s.tbl_name LIKE 'messages_fts%' THEN 'messages_fts' ELSE s.tbl_name END, sum(d.pgsize)"
        " FROM dbstat('main', TRUE) AS d JOIN sqlite_schema AS s ON s.name = d.name"
        " GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(rows)


def compact(database: Database, *, waiting: bool = True) -> Iterator[int]:
    """Empty the sparse chunks and shrink the file; yield how many bytes each short step gave back.

    Nothing is lost by stopping between two steps. Ids and vectors stay what they are.

    Raises:
        StoreBusyError: Another process is writing, for long or while it is not to be waited for.
    """

    def step(work: Callable[[], int | None]) -> int | None:
        with nullcontext() if waiting else database.without_waiting():
            return work()

    for chunk in _sparse_chunks(database):
        while step(partial(_move_some, database, chunk)) is not None:
            yield 0
    while freed := step(partial(_free_some_pages, database)):
        yield freed


def _sparse_chunks(database: Database) -> list[int]:
    rows = database.query(
        "SELECT c.chunk_id FROM vec_memories_chunks AS c"
        " LEFT JOIN (SELECT chunk_id, count(*) AS taken FROM vec_memories_rowids GROUP BY chunk_id) AS r"
        " ON r.chunk_id = c.chunk_id"
        " WHERE c.chunk_id < (SELECT max(chunk_id) FROM vec_memories_chunks)"
        " AND ifnull(r.taken, 0) <= :sparse * c.size ORDER BY r.taken, c.chunk_id",
        {"sparse": SPARSE},
    )
    return [row[0] for row in rows]


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


def _free_some_pages(database: Database) -> int:
    """Let the file end sooner; return by how many bytes."""
    before = _free_pages(database)
    if not (before and database.execute("PRAGMA auto_vacuum")[0][0]):
        return 0
    database.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
    return (before - _free_pages(database)) * int(database.execute("PRAGMA page_size")[0][0])


def _free_pages(database: Database) -> int:
    return int(database.execute("PRAGMA freelist_count")[0][0])


_FULL_TEXT = ("memories_fts", "messages_fts")


def erase(database: Database) -> bool:
    """Write the file anew without anything that was deleted; return whether its log is empty too.

    Others cannot write meanwhile. It needs as much free space as the store takes, twice for a moment.
    While another process reads, the log stays as it is.

    Raises:
        StoreBusyError: Another process keeps writing.
        StoreFullError: The disk is full.
    """
    tell("Merging the full-text indexes")
    for table in _FULL_TEXT:
        with database.transaction():
            # Entries are marked as deleted; only a merge of the whole index takes their words out.
            database.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
    rewrite(database)
    return database.empty_log()


_ATTEMPTS = 10
_STEPS_BETWEEN_REPORTS = 20_000
"""SQLite's own steps, some ten milliseconds."""

_COPIED_AT_ONCE = 1_000


def rewrite(database: Database) -> None:
    """Write the file anew; outside transactions. Others cannot write meanwhile, and can read.

    It needs as much free space as the store takes, twice for a moment.

    Raises:
        StoreBusyError: Others keep writing.
        StoreFullError: The disk is full; the store is as it was.
    """
    for _ in range(_ATTEMPTS):
        if _rewritten(database):
            return
    raise StoreBusyError(database.path)


def remove_leftover(database: Database) -> None:
    """Remove the copy that a killed process left, unless one is being made."""
    copy = _copy_path(database.path)
    if copy.exists():
        with suppress(StoreBusyError), database.without_waiting(), database.transaction(durable=False):
            _remove(copy)


def _rewritten(database: Database) -> bool:
    """Write the file anew; False where somebody wrote between the copy and its taking the place."""
    with translated(database.path), ExitStack() as stack:
        reader, target = (stack.enter_context(_opened(database.path)) for _ in range(2))
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


def _opened(path: Path) -> closing[apsw.Connection]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_TIMEOUT_S * 1000)
    connection.pragma("fullfsync", 1)
    connection.pragma("temp_store", "MEMORY")
    return closing(connection)


def _copy_path(store: Path) -> Path:
    return store.with_name(f".{store.name}.part")


def _remove(copy: Path) -> None:
    for suffix in ("", "-journal"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _tell() -> bool:
    tell("Writing the store anew")
    return False  # anything else would end the statement
