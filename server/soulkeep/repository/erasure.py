"""Taking what was deleted out of the file itself: SQLite leaves it in free pages and in its log.

A fact in the store says that this is still to be done, so that a purge that was cut off shows.
"""

from soulkeep.progress import tell
from soulkeep.repository.connection import Database

_PENDING = "erasure_pending"
_FULL_TEXT = ("memories_fts", "messages_fts")


def mark_pending(database: Database) -> None:
    """Record that the file still holds what is being deleted; in the transaction that deletes it."""
    database.execute("INSERT OR REPLACE INTO store_facts (name, value) VALUES (?, 'yes')", (_PENDING,))


def is_pending(database: Database) -> bool:
    """Whether the file still holds what a purge deleted."""
    return bool(database.execute("SELECT 1 FROM store_facts WHERE name = ?", (_PENDING,)))


def erase(database: Database) -> bool:
    """Write the file anew without anything that was deleted; return whether its log is empty too.

    Others cannot write meanwhile. It needs as much free space as the store takes. While another process
    reads, the log stays, and the erasure is still pending.

    Raises:
        StoreBusyError: Another process keeps writing.
        StoreFullError: The disk is full.
    """
    tell("Merging the full-text indexes")
    for table in _FULL_TEXT:
        with database.transaction():
            # Entries are marked as deleted; only a merge of the whole index takes their words out.
            database.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
    database.vacuum()
    if not database.empty_log():
        return False
    with database.transaction():
        database.execute("DELETE FROM store_facts WHERE name = ?", (_PENDING,))
    return True
