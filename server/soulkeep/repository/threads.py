"""Threads and the user's global prompts."""

from soulkeep.errors import PromptNotFoundError, ThreadNotFoundError
from soulkeep.models import GlobalPrompt, Thread
from soulkeep.repository.connection import Database


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
        rows = self._database.execute(
            "SELECT id, title, system_prompt, archived, created_at, last_active_at"
            " FROM threads WHERE id = ?",
            (thread_id,),
        )
        if not rows:
            raise ThreadNotFoundError(thread_id)
        identifier, title, system_prompt, archived, created_at, last_active_at = rows[0]
        return Thread(identifier, title, system_prompt, bool(archived), created_at, last_active_at)

    def touch_thread(self, thread_id: str, last_active_at: str) -> None:
        """Record that something happened in a thread; inside a transaction."""
        self._database.execute(
            "UPDATE threads SET last_active_at = ? WHERE id = ?", (last_active_at, thread_id)
        )


class PromptTable:
    """Rows of global prompts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_prompt(self, name: str, content: str, priority: int, created_at: str) -> int:
        """Insert an active prompt; inside a transaction. Return its id."""
        self._database.execute(
            "INSERT INTO global_prompts (name, content, is_active, priority, created_at)"
            " VALUES (?, ?, 1, ?, ?)",
            (name, content, priority, created_at),
        )
        return self._database.last_row_id

    def get_prompt(self, prompt_id: int) -> GlobalPrompt:
        """Return one prompt.

        Raises:
            PromptNotFoundError: There is none with this id.
        """
        found = self._list("id = ?", prompt_id)
        if not found:
            raise PromptNotFoundError(prompt_id)
        return found[0]

    def list_prompts(self, *, include_inactive: bool) -> list[GlobalPrompt]:
        """Return the prompts, highest priority first, older first among equals."""
        return self._list("is_active >= ?", 0 if include_inactive else 1)

    def _list(self, condition: str, value: int) -> list[GlobalPrompt]:
        rows = self._database.execute(
            "SELECT id, name, content, is_active, priority, created_at FROM global_prompts"
            f" WHERE {condition} ORDER BY priority DESC, id",
            (value,),
        )
        return [
            GlobalPrompt(identifier, name, content, bool(is_active), priority, created_at)
            for identifier, name, content, is_active, priority, created_at in rows
        ]

    def update_prompt(self, prompt: GlobalPrompt) -> None:
        """Write a prompt's name, content, state and priority; inside a transaction."""
        self._database.execute(
            "UPDATE global_prompts SET name = ?, content = ?, is_active = ?, priority = ? WHERE id = ?",
            (prompt.name, prompt.content, int(prompt.is_active), prompt.priority, prompt.id),
        )

    def delete_prompt(self, prompt_id: int) -> None:
        """Delete a prompt; inside a transaction."""
        self._database.execute("DELETE FROM global_prompts WHERE id = ?", (prompt_id,))
