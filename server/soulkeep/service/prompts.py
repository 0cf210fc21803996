"""The user's global prompts: stored system prompts, loaded by priority."""

from dataclasses import replace
from typing import Any

from soulkeep.models import Clock, GlobalPrompt, Session, timestamp
from soulkeep.repository import Repository
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_CONTENT,
    MAX_NAME,
    MAX_PRIORITY,
    require_range,
    require_text,
)


class Prompts:
    """The service behind `list_prompts` and `soulkeep prompts`."""

    def __init__(self, repository: Repository, sessions: Sessions, clock: Clock) -> None:
        self._repository = repository
        self._sessions = sessions
        self._clock = clock

    def list_prompts(self, *, include_inactive: bool = False) -> list[GlobalPrompt]:
        """Return the prompts, highest priority first, older first among equals."""
        return self._repository.prompts.list_prompts(include_inactive=include_inactive)

    def add_prompt(
        self, name: str, content: str, priority: int = 0, session: Session | None = None
    ) -> GlobalPrompt:
        """Store an active prompt.

        Raises:
            InvalidInputError: The name, the content or the priority breaks a rule.
        """
        session = session or self._sessions.current()
        _require(name, content, priority)
        now = timestamp(self._clock())
        with self._repository.transaction():
            prompt_id = self._repository.prompts.add_prompt(name.strip(), content, priority, now)
            self._sessions.audit(
                session, "prompt.created", {"prompt_id": prompt_id, "priority": priority}
            )
        return self._repository.prompts.get_prompt(prompt_id)

    def change_prompt(
        self,
        prompt_id: int,
        *,
        name: str | None = None,
        content: str | None = None,
        priority: int | None = None,
        is_active: bool | None = None,
        session: Session | None = None,
    ) -> GlobalPrompt:
        """Change what is given and keep the rest; return the prompt as it is now.

        Raises:
            PromptNotFoundError: There is none with this id.
            InvalidInputError: A new value breaks a rule.
        """
        session = session or self._sessions.current()
        given: dict[str, Any] = {
            "name": name,
            "content": content,
            "priority": priority,
            "is_active": is_active,
        }
        changes = {field: value for field, value in given.items() if value is not None}
        with self._repository.transaction():
            changed = replace(self._repository.prompts.get_prompt(prompt_id), **changes)
            _require(changed.name, changed.content, changed.priority)
            self._repository.prompts.update_prompt(changed)
            self._sessions.audit(
                session, "prompt.changed", {"prompt_id": prompt_id, "fields": sorted(changes)}
            )
        return changed

    def remove_prompt(self, prompt_id: int, session: Session | None = None) -> GlobalPrompt:
        """Delete a prompt and return it, so that the caller can put it back.

        Raises:
            PromptNotFoundError: There is none with this id.
        """
        session = session or self._sessions.current()
        with self._repository.transaction():
            prompt = self._repository.prompts.get_prompt(prompt_id)
            self._repository.prompts.delete_prompt(prompt_id)
            self._sessions.audit(session, "prompt.removed", {"prompt_id": prompt_id})
        return prompt


def _require(name: str, content: str, priority: int) -> None:
    require_text("name", name, MAX_NAME)
    require_text("content", content, MAX_CONTENT)
    require_range("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)
