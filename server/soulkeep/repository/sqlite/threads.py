"""Threads."""

import json
from collections.abc import Sequence
from itertools import islice

from soulkeep.errors import ThreadNotFoundError
from soulkeep.models import Thread
from soulkeep.repository.sqlite.consents import origin_of, origins
from soulkeep.repository.sqlite.database import Database, Row
from soulkeep.search.words import same_title

_COLUMNS = (
    f"threads.id, title, system_prompt, archived, created_at, last_active_at, {origins('threads')}"
)


class ThreadTable:
    """Rows of threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_thread(self, thread: Thread) -> None:
        """Insert a thread; inside a transaction."""
        self._database.execute(
            "INSERT INTO threads (id, title, system_prompt, archived, created_at, last_active_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                thread.id,
                thread.title,
                thread.system_prompt,
                int(thread.archived),
                thread.created_at,
                thread.last_active_at,
            ),
        )

    def get_thread(self, thread_id: str) -> Thread:
        """Return one thread.

        Raises:
            ThreadNotFoundError: There is none with this id.
        """
        rows = self._database.query(f"SELECT {_COLUMNS} FROM threads WHERE id = ?", (thread_id,))
        if not rows:
            raise ThreadNotFoundError(thread_id)
        return _thread(rows[0])

    def list_threads(
        self, limit: int, archived: bool | None = False, containing: str = ""
    ) -> list[Thread]:
        """Return up to `limit` threads whose title or id contains a text, latest activity first.

        Case does not matter. Archived threads are left out, or alone are found, or with None among all.
        No more than `limit` are returned where that is 0 or more.
        """
        sought = same_title(containing)
        rows = self._database.query(
            "SELECT id, title FROM threads WHERE :archived IS NULL OR (archived IS TRUE) = :archived"
            " ORDER BY last_active_at DESC, rowid DESC LIMIT :limit",
            # SQLite folds the case of ASCII only, so all are read where a text is looked for.
            {"archived": archived, "limit": -1 if sought else limit},
        )
        found = (
            thread_id
            for thread_id, title in rows
            if not sought or sought in same_title(title) or sought in thread_id.casefold()
        )
        return self._listed(list(islice(found, limit if limit >= 0 else None)))

    def _listed(self, thread_ids: Sequence[str]) -> list[Thread]:
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM json_each(?) AS wanted JOIN threads ON threads.id = wanted.value"
            " ORDER BY wanted.key",
            (json.dumps(thread_ids),),
        )
        return [_thread(row) for row in rows]

    def count(self) -> tuple[int, int]:
        """Return how many threads are active and how many archived."""
        rows = self._database.query("SELECT count(*), total(archived IS TRUE) FROM threads")
        count, archived = rows[0]
        return count - int(archived), int(archived)

    def find_titled(self, title: str) -> list[Thread]:
        """Return the threads whose titles read the same: active ones first, then latest."""
        rows = self._database.query(
            "SELECT id, title FROM threads ORDER BY archived IS TRUE, last_active_at DESC, rowid DESC"
        )
        sought = same_title(title)
        return self._listed([thread_id for thread_id, other in rows if same_title(other) == sought])

    def list_made(self, limit: int, before: int | None = None) -> list[tuple[int, Thread]]:
        """Return up to `limit` active threads, the latest made first, each with its place.

        Only those whose place is below `before`: a place stays what it is when others are made or used.
        """
        rows = self._database.query(
            f"SELECT rowid, {_COLUMNS} FROM threads WHERE archived IS NOT TRUE AND rowid < ?"
            " ORDER BY rowid DESC LIMIT ?",
            (2**62 if before is None else before, limit),
        )
        return [(row[0], _thread(row[1:])) for row in rows]

    def change_thread(self, thread_id: str, **columns: str | int | None) -> None:
        """Set columns of a thread, by their names; inside a transaction."""
        assigned = ", ".join(f"{name} = :{name}" for name in columns)
        self._database.execute(
            f"UPDATE threads SET {assigned} WHERE id = :of_thread", {**columns, "of_thread": thread_id}
        )

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread that nothing belongs to any more; inside a transaction."""
        self._database.execute("DELETE FROM threads WHERE id = ?", (thread_id,))

    def require_threads(self, thread_ids: Sequence[str]) -> None:
        """Check that threads exist.

        Raises:
            ThreadNotFoundError: One does not.
        """
        rows = self._database.query(
            "SELECT w.value FROM json_each(?) AS w"
            " WHERE w.value NOT IN (SELECT id FROM threads) LIMIT 1",
            (json.dumps(list(thread_ids)),),
        )
        if rows:
            raise ThreadNotFoundError(rows[0][0])

    def touch_threads(self, thread_ids: Sequence[str], last_active_at: str) -> None:
        """Record that something happened in threads; inside a transaction."""
        self._database.execute(
            "UPDATE threads SET last_active_at = ? WHERE id IN (SELECT value FROM json_each(?))",
            (last_active_at, json.dumps(list(thread_ids))),
        )


def _thread(row: Row) -> Thread:
    identifier, title, prompt, archived, created_at, last_active_at, origins = row
    prompt_by, is_agreed = origin_of(origins, prompt)
    return Thread(
        identifier, title, prompt, bool(archived), created_at, last_active_at, prompt_by, is_agreed
    )
