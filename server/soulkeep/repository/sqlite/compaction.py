"""Giving back the space of deleted vectors, which sqlite-vec neither reuses nor frees.

sqlite-vec keeps vectors in chunks of 1,024 and frees a chunk when its last vector is gone. So those of
sparse chunks are moved to the end, in transactions short enough for others to write in between.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

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
