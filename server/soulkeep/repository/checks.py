"""Proof that a store is whole: SQLite's own checks, and every derived row against its memory."""

from soulkeep.models import Fault
from soulkeep.repository.connection import Database
from soulkeep.repository.erasure import is_pending
from soulkeep.repository.messages import THREAD_KEY

TABLES = (
    "threads",
    "memories",
    "global_prompts",
    "sessions",
    "messages",
    "usage_records",
    "audit_log",
)

SOURCES = {table: table for table in TABLES} | {
    # The shadow tables are what the virtual ones are made of, and are counted without reading vectors.
    "vectors": "vec_memories_rowids",
    "full-text entries": "memories_fts_docsize",
}

_REINDEX = "run `soulkeep reindex`, which builds the search indexes anew from the memories"
_RESTORE = "run `soulkeep restore` with a backup that `soulkeep backups` lists"
_REPAIR = "run `soulkeep doctor --repair`"


def count_rows(database: Database) -> dict[str, int]:
    """Count the rows of each canonical table, of the vectors and of the full-text index."""
    return {
        name: database.execute(f"SELECT count(*) FROM {source}")[0][0]
        for name, source in SOURCES.items()
    }


def find_faults(database: Database, *, vectors_expected: bool) -> list[Fault]:
    """Return everything that is wrong with the store; an empty list means it is whole.

    Exactly one vector (none, where the store's embedder makes none) and one full-text entry belong to
    each memory, and one full-text entry to each message of a thread.
    """
    return [
        *_integrity(database),
        *_foreign_keys(database),
        *_vectors(database, vectors_expected),
        *_lost_vectors(database),
        *_full_text(database),
        *_message_words(database),
        *_erasure(database),
    ]


def _erasure(database: Database) -> list[Fault]:
    detail = "what was purged is out of all searches and still in the free pages of the file"
    return [Fault("purge", detail, "run `soulkeep purge`")] if is_pending(database) else []


def _integrity(database: Database) -> list[Fault]:
    rows = [row[0] for row in database.execute("PRAGMA integrity_check(3)")]
    return [] if rows == ["ok"] else [Fault("integrity", "; ".join(rows), _RESTORE)]


def _foreign_keys(database: Database) -> list[Fault]:
    rows = database.execute('SELECT "table", count(*) FROM pragma_foreign_key_check GROUP BY 1')
    return [
        Fault("foreign keys", f"{count} rows of {table} refer to rows that are gone", _RESTORE)
        for table, count in rows
    ]


def _vectors(database: Database, expected: bool) -> list[Fault]:
    missing, orphaned = database.execute(
        "SELECT (SELECT count(*) FROM memories WHERE id NOT IN (SELECT rowid FROM vec_memories_rowids)),"
        " (SELECT count(*) FROM vec_memories_rowids WHERE rowid NOT IN (SELECT id FROM memories))"
    )[0]
    faults = []
    if missing and expected:
        faults.append(Fault("vectors", f"{missing} memories have no vector", _REINDEX))
    if not expected and (surplus := count_rows(database)["vectors"]):
        faults.append(Fault("vectors", f"{surplus} vectors are of no known embedder", _REINDEX))
    elif orphaned:
        faults.append(Fault("vectors", f"{orphaned} vectors have no memory", _REINDEX))
    return faults


def _lost_vectors(database: Database) -> list[Fault]:
    """Find vectors that are listed and whose chunk is gone."""
    lost = database.execute(
        "SELECT count(*) FROM vec_memories_rowids AS r"
        " WHERE NOT EXISTS (SELECT 1 FROM vec_memories_chunks AS c WHERE c.chunk_id = r.chunk_id)"
        " OR NOT EXISTS (SELECT 1 FROM vec_memories_vector_chunks00 AS v WHERE v.rowid = r.chunk_id)"
    )[0][0]
    return [Fault("vectors", f"{lost} vectors are listed and lost", _REPAIR)] if lost else []


def _full_text(database: Database) -> list[Fault]:
    missing, orphaned = database.execute(
        "SELECT (SELECT count(*) FROM memories WHERE id NOT IN (SELECT id FROM memories_fts_docsize)),"
        " (SELECT count(*) FROM memories_fts_docsize WHERE id NOT IN (SELECT id FROM memories))"
    )[0]
    if missing or orphaned:
        detail = f"{missing} memories are not indexed, {orphaned} entries have no memory"
        return [Fault("full text", detail, _REINDEX)]
    return []


def _message_words(database: Database) -> list[Fault]:
    missing, orphaned = database.execute(
        "SELECT (SELECT count(*) FROM sessions AS s JOIN messages AS m ON m.session_id = s.id"
        f" WHERE s.session_key GLOB '{THREAD_KEY}*'"
        " AND m.id NOT IN (SELECT id FROM messages_fts_docsize)),"
        " (SELECT count(*) FROM messages_fts_docsize WHERE id NOT IN (SELECT id FROM messages))"
    )[0]
    if missing or orphaned:
        detail = f"{missing} messages are not indexed, {orphaned} entries have no message"
        return [Fault("full text of messages", detail, _REINDEX)]
    return []
