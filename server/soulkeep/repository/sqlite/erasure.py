"""Taking what was deleted out of the file itself: SQLite leaves it in free pages and in its log.

Facts in the store say what is still to be done, so that a purge that was cut off shows and goes on: the
store's own file, and the backups that were named, with the ids of what is to go out of each.
"""

import json
from collections.abc import Mapping, Sequence

from soulkeep.progress import tell
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.rewriting import rewrite

_PENDING = "erasure_pending"
_BACKUPS = "backups_to_purge"
_FULL_TEXT = ("memories_fts", "messages_fts")


def mark_pending(database: Database) -> None:
    """Record that the file still holds what is being deleted; in the transaction that deletes it."""
    _put(database, _PENDING, "yes")


def is_pending(database: Database) -> bool:
    """Whether the file still holds what a purge deleted."""
    return _get(database, _PENDING) is not None


def backups_to_purge(database: Database) -> dict[str, list[int]]:
    """Return the backups that a purge is still to rewrite, with the ids of the memories that go."""
    marked: dict[str, list[int]] = json.loads(_get(database, _BACKUPS) or "{}")
    return marked


def mark_backups(database: Database, backups: Mapping[str, Sequence[int]]) -> None:
    """Record which backups are still to be rewritten; inside a transaction."""
    _put(database, _BACKUPS, json.dumps(backups) if backups else None)


def erase(database: Database) -> bool:
    """Write the file anew without anything that was deleted; return whether its log is empty too.

    Others cannot write meanwhile. It needs as much free space as the store takes, twice for a moment.
    While another process reads, the log stays, and the erasure is still pending.

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
    if not database.empty_log():
        return False
    with database.transaction():
        _put(database, _PENDING, None)
    return True


def _get(database: Database, name: str) -> str | None:
    rows = database.query("SELECT value FROM store_facts WHERE name = ?", (name,))
    return str(rows[0][0]) if rows else None


def _put(database: Database, name: str, value: str | None) -> None:
    if value is None:
        database.execute("DELETE FROM store_facts WHERE name = ?", (name,))
    else:
        facts = "INSERT OR REPLACE INTO store_facts (name, value) VALUES (?, ?)"
        database.execute(facts, (name, value))
