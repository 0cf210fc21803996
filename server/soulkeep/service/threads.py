"""Threads: conversations with a title and, if set, their own system prompt."""

import secrets

from soulkeep.models import Clock, Session, Thread, timestamp
from soulkeep.repository import Repository
from soulkeep.service.changes import Changes
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import MAX_CONTENT, MAX_NAME, require_range, require_text

MAX_LISTED = 1_000


class Threads:
    """The service behind `create_thread`, and what threads there are."""

    def __init__(
        self, repository: Repository, changes: Changes, sessions: Sessions, clock: Clock
    ) -> None:
        self._repository = repository
        self._changes = changes
        self._sessions = sessions
        self._clock = clock

    def create_thread(
        self, title: str, system_prompt: str | None = None, session: Session | None = None
    ) -> Thread:
        """Create a thread with a title of up to 200 characters; its id is 12 random hex digits.

        Raises:
            InvalidInputError: The title or the system prompt breaks a rule.
            StoreError: The store cannot take it.
        """
        session = session or self._sessions.current()
        require_text("title", title, MAX_NAME)
        if system_prompt is not None:
            require_text("system_prompt", system_prompt, MAX_CONTENT)
        now = timestamp(self._clock())
        thread = Thread(secrets.token_hex(6), title.strip(), system_prompt, False, now, now)
        with self._changes.making("thread.created", session) as making:
            self._repository.threads.add_thread(thread)
            making.add("threads", [thread.id])
            self._sessions.audit(session, "thread.created", {"thread_id": thread.id})
        return thread

    def list_threads(
        self, limit: int = 100, archived: bool | None = False, containing: str = ""
    ) -> list[Thread]:
        """Return up to `limit` (1 to 1,000) threads, latest activity first.

        Their title or id contains a text in any case. Archived threads are left out, or alone are
        listed, or with None among all.

        Raises:
            InvalidInputError: The limit breaks a rule.
            StoreError: The store cannot be read.
        """
        require_range("limit", limit, 1, MAX_LISTED)
        return self._repository.threads.list_threads(limit, archived, containing)

    def find_threads(self, archived: bool | None = False, containing: str = "") -> list[str]:
        """Return the ids of all threads that `list_threads` would list without a limit.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._repository.threads.find_threads(archived, containing)
