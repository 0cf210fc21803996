"""Taking what was deleted out of the file itself: SQLite leaves it in free pages and in its log."""

from soulkeep.progress import tell
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.rewriting import rewrite

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
