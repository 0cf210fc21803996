"""Making the search indexes of a store anew, however damaged they are."""

from collections.abc import Sequence

from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.schema import (
    MESSAGES_FTS,
    NEXT_VECTORS,
    NEXT_VECTORS_BY_ID,
    VEC_MEMORIES,
    WORDS_FTS,
)

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
