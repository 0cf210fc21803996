"""The user's global prompts."""

from dataclasses import replace

from soulkeep.errors import PromptNotFoundError
from soulkeep.models import GlobalPrompt
from soulkeep.repository.sqlite.consents import origin_of, origins
from soulkeep.repository.sqlite.database import Database


class PromptTable:
    """Rows of global prompts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_prompt(
        self, name: str, content: str, priority: int, created_at: str, *, is_active: bool
    ) -> int:
        """Insert a prompt; inside a transaction. Return its id."""
        self._database.execute(
            "INSERT INTO global_prompts (name, content, is_active, priority, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (name, content, int(is_active), priority, created_at),
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

    def list_prompts(self) -> list[GlobalPrompt]:
        """Return all prompts, highest priority first, older first among equals."""
        return self._list("?", 1)

    def outline(self) -> str:
        """Return a text that changes with the sizes of prompts, made without reading what they say."""
        (sizes,) = self._database.query(
            "SELECT group_concat(id || ' ' || priority || ' ' || is_active"
            " || ' ' || octet_length(name) || ' ' || octet_length(content)) FROM global_prompts"
        )[0]
        return sizes or ""

    def _list(self, condition: str, value: int) -> list[GlobalPrompt]:
        rows = self._database.query(
            "SELECT id, name, content, is_active, priority, created_at,"
            f" {origins('global_prompts')} FROM global_prompts"
            f" WHERE {condition} ORDER BY priority DESC, id",
            (value,),
        )
        return [_prompt(*row) for row in rows]

    def update_prompt(self, prompt: GlobalPrompt) -> None:
        """Write a prompt's name, content, state and priority; inside a transaction."""
        self._database.execute(
            "UPDATE global_prompts SET name = ?, content = ?, is_active = ?, priority = ? WHERE id = ?",
            (prompt.name, prompt.content, int(prompt.is_active), prompt.priority, prompt.id),
        )

    def delete_prompt(self, prompt_id: int) -> None:
        """Delete a prompt; inside a transaction."""
        self._database.execute("DELETE FROM global_prompts WHERE id = ?", (prompt_id,))


def _prompt(
    prompt_id: int, name: str, content: str, is_active: int, priority: int, created_at: str, records: str
) -> GlobalPrompt:
    prompt = GlobalPrompt(prompt_id, name, content, bool(is_active), priority, created_at)
    prompt_by, is_agreed = origin_of(records, prompt.agreed_text)
    return replace(prompt, prompt_by=prompt_by, is_agreed=is_agreed)
