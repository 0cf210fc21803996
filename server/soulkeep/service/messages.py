"""The messages of threads: kept once each, and read in pages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from soulkeep.days import Days
from soulkeep.embedders.tokens import TokenCounter
from soulkeep.models import Clock, Message, NewMessage, Session, timestamp
from soulkeep.repository import Repository
from soulkeep.service.changes import Changes
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_MESSAGES,
    MAX_NAME,
    parse_moment,
    require_messages,
    require_range,
    require_text,
)


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of one message; `id` is the older one's where `stored` is false."""

    id: int
    stored: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Messages, oldest first; `has_more` says whether there are older ones."""

    messages: tuple[Message, ...]
    has_more: bool


class Messages:
    """The service behind `save_messages` and `read_messages`."""

    def __init__(
        self,
        repository: Repository,
        changes: Changes,
        sessions: Sessions,
        tokens: TokenCounter,
        clock: Clock,
        days: Days,
    ) -> None:
        self._repository = repository
        self._changes = changes
        self._sessions = sessions
        self._tokens = tokens
        self._clock = clock
        self._days = days

    def save(
        self, thread_id: str, messages: Sequence[NewMessage], session: Session | None = None
    ) -> list[Saved]:
        """Append 1 to 200 messages to a thread, all or none; return what became of each, in order.

        Those with which the list begins are not stored twice where they are the last of the thread: a
        conversation may be sent again as it grows. So it is anywhere in the thread for a list whose
        messages all have a time in `created_at`. Other repetitions are part of the conversation.

        Raises:
            InvalidInputError: A message breaks a rule; nothing is written.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot take them.
        """
        session = session or self._sessions.current()
        require_text("thread_id", thread_id, MAX_NAME)
        require_messages(messages, self._days)
        anywhere = all(message.created_at and ":" in message.created_at for message in messages)
        messages = [_dated(message, self._days) for message in messages]
        counts = [self._tokens.count(message.content) for message in messages]
        with self._changes.recording("messages.saved", session):
            self._repository.threads.get_thread(thread_id)
            known = self._at_the_end(thread_id, messages)
            if not known and anywhere:
                known = self._anywhere(thread_id, messages)
            new = slice(len(known), None)
            ids = self._append(thread_id, messages[new], counts[new], session)
        return [*(Saved(i, stored=False) for i in known), *(Saved(i, stored=True) for i in ids)]

    def list_messages(self, thread_id: str, limit: int = 50, before: int | None = None) -> Page:
        """Return the last `limit` (1 to 200) messages of a thread, or the last ones below an id.

        Raises:
            InvalidInputError: The limit is outside.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
        """
        require_text("thread_id", thread_id, MAX_NAME)
        require_range("limit", limit, 1, MAX_MESSAGES)
        self._repository.threads.get_thread(thread_id)
        found = self._repository.messages.list_of_thread(thread_id, limit + 1, before=before)
        return Page(tuple(found[-limit:]), len(found) > limit)

    def _append(
        self,
        thread_id: str,
        messages: Sequence[NewMessage],
        counts: Sequence[int],
        session: Session,
    ) -> list[int]:
        if not messages:
            return []
        now, table = timestamp(self._clock()), self._repository.messages
        ids = table.add_messages(thread_id, session.agent_id, messages, counts, now)
        self._repository.threads.touch_threads([thread_id], now)
        details = (
            {"message_id": i, "thread_id": thread_id, "role": m.role, "characters": len(m.content)}
            for i, m in zip(ids, messages, strict=True)
        )
        self._sessions.audit(session, "message.stored", *details)
        return ids

    def _at_the_end(self, thread_id: str, messages: Sequence[NewMessage]) -> list[int]:
        """Return the ids of the thread's last messages, as many as the list begins with."""
        last = self._repository.messages.list_of_thread(thread_id, len(messages))
        for start in range(len(last)):
            if _are_same(last[start:], messages):
                return [message.id for message in last[start:]]
        return []

    def _anywhere(self, thread_id: str, messages: Sequence[NewMessage]) -> list[int]:
        """Return the ids of messages of the thread that follow each other as all of the list do."""
        table = self._repository.messages
        for first in table.find_same(thread_id, messages[0]):
            found = table.list_of_thread(thread_id, len(messages), first=first)
            if len(found) == len(messages) and _are_same(found, messages):
                return [message.id for message in found]
        return []


def _dated(message: NewMessage, days: Days) -> NewMessage:
    if message.created_at is None:
        return message
    return replace(message, created_at=parse_moment("created_at", message.created_at, days))


def _are_same(stored: Sequence[Message], sent: Sequence[NewMessage]) -> bool:
    return all(
        (old.role, old.content) == (new.role, new.content) and new.created_at in (None, old.created_at)
        for old, new in zip(stored, sent, strict=False)
    )
