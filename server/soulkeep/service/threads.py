"""Threads: conversations with a title and, if set, their own system prompt; and their messages.

Messages are kept once each, and read in pages.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, get_args

from soulkeep.days import Days
from soulkeep.embedders.tokens import TokenCounter
from soulkeep.errors import InvalidInputError
from soulkeep.models import Clock, Memory, MemoryType, Message, NewMessage, Session, Thread, timestamp
from soulkeep.repository import Repository
from soulkeep.search.words import same_title
from soulkeep.service.callers import (
    MAX_CONTENT,
    MAX_LIMIT,
    MAX_MESSAGES,
    MAX_NAME,
    LineChange,
    Sessions,
    parse_moment,
    require_label,
    require_messages,
    require_range,
    require_text,
)
from soulkeep.service.changes import Changes
from soulkeep.service.upkeep import Background
from soulkeep.wording import plain

MAX_LISTED = 1_000
WEIGHTIEST: tuple[MemoryType, ...] = ("decision", "summary", "fact", "preference")
"""What going on with a thread needs first."""
OF_EACH_TYPE = 5
"""How many memories of one type a digest holds."""

Fate = Literal["global", "forget"]
FATES: tuple[Fate, ...] = get_args(Fate)
"""What may become of the memories of a thread that is deleted."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What it takes to go on with a thread: its last messages, oldest first, and weightiest memories."""

    thread: Thread
    messages: tuple[Message, ...]
    memories: tuple[Memory, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """A thread to work in: a new one, or the latest that has the title; and others of that title."""

    thread: Thread
    is_new: bool
    namesakes: tuple[Thread, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """A thread that is gone, what became of its memories, and the change to undo to have it back.

    `lines` says what became of lines of MEMORY.md that forgotten memories were promoted to.
    """

    thread: Thread
    fate: Fate
    memory_ids: tuple[int, ...]
    message_count: int
    change_id: int
    lines: tuple[LineChange, ...] = ()


@dataclass(eq=False)
class Threads:
    """Makes, lists, changes and deletes threads, whichever client made them."""

    _repository: Repository
    _changes: Changes
    _background: Background
    _sessions: Sessions
    _clock: Clock

    def create_thread(
        self,
        title: str,
        system_prompt: str | None = None,
        session: Session | None = None,
        *,
        agreed: bool = False,
    ) -> Thread:
        """Create a thread with a title of up to 200 characters; its id is 12 random hex digits.

        The system prompt is an instruction if the user `agreed` to it or the session is theirs.

        Raises:
            InvalidInputError: The title or the system prompt breaks a rule.
            StoreError: The store cannot take it.
        """
        return self.start(title, system_prompt, session, agreed=agreed, new=True).thread

    def start(
        self,
        title: str,
        system_prompt: str | None = None,
        session: Session | None = None,
        *,
        agreed: bool = False,
        new: bool = False,
    ) -> Started:
        """Return the thread of a title, active or archived, or create it; a `new` one in any case.

        Titles are one whatever their case, spaces and Unicode composition. So a conversation that begins
        like one before goes on with its thread, and a call that is sent again creates no second one.

        Raises:
            InvalidInputError: The title or the system prompt breaks a rule.
            StoreError: The store cannot take it.
        """
        session = session or self._sessions.current()
        self.require_prompt(system_prompt)
        with self._changes.recording("thread.created", session):
            namesakes = self.namesakes(title)
            if namesakes and not new:
                return Started(namesakes[0], False, tuple(namesakes[1:]))
            thread_id, now = secrets.token_hex(6), timestamp(self._clock())
            thread = Thread(thread_id, require_label("title", title), system_prompt, False, now, now)
            self._repository.threads.add_thread(thread)
            self._note_prompt(thread_id, system_prompt, session, agreed=agreed)
            self._sessions.audit(session, "thread.created", {"thread_id": thread_id})
            return Started(self._get(thread_id), True, tuple(namesakes))

    def namesakes(self, title: str) -> list[Thread]:
        """Return the threads of a title, active ones first, then latest activity first.

        Raises:
            InvalidInputError: The title breaks a rule.
            StoreError: The store cannot be read.
        """
        sought = same_title(require_label("title", title))
        found = self._repository.threads.list_threads(-1, None, sought)
        same = [thread for thread in found if same_title(thread.title) == sought]
        return sorted(same, key=attrgetter("archived"))

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
        return [thread.id for thread in self._repository.threads.list_threads(-1, archived, containing)]

    def get_thread(self, thread_id: str) -> Thread:
        """Return a thread.

        Raises:
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
        """
        return self._repository.threads.get_thread(thread_id)

    def list_made(self, limit: int, before: int | None = None) -> list[tuple[int, Thread]]:
        """Return up to `limit` active threads with their lasting places below `before`, latest first.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._repository.threads.list_made(limit, before)

    def latest_memories(self, thread_id: str, limit: int) -> list[Memory]:
        """Return the latest memories of a thread, newest first.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._repository.memories.list_of_thread(thread_id, limit)

    def rename(self, thread_id: str, title: str, session: Session | None = None) -> Thread:
        """Give a thread a title of up to 200 characters; return it.

        Raises:
            InvalidInputError: The title breaks a rule.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot take it.
        """
        title = require_label("title", title)
        return self._change(thread_id, "thread.renamed", session, title=title)

    def set_prompt(
        self,
        thread_id: str,
        system_prompt: str | None,
        session: Session | None = None,
        *,
        agreed: bool = False,
    ) -> Thread:
        """Give a thread its own system prompt, or with None take it away; return the thread.

        It is an instruction if the user `agreed` to it or the session is theirs; else an agent's note,
        which does not take the place of an instruction: the thread then stays as it is.

        Raises:
            InvalidInputError: The prompt breaks a rule.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot take it.
        """
        self.require_prompt(system_prompt)
        session = session or self._sessions.current()
        with self._changes.recording("thread.prompted", session):
            former = self._get(thread_id)
            has_other = former.is_agreed and former.system_prompt not in (None, system_prompt)
            if system_prompt and has_other and not (agreed or session.is_users):
                return former
            self._repository.threads.change_threads([thread_id], system_prompt=system_prompt)
            self._note_prompt(thread_id, system_prompt, session, agreed=agreed)
            self._sessions.audit(session, "thread.prompted", {"thread_id": thread_id})
            return self._get(thread_id)

    def require_prompt(self, system_prompt: str | None) -> None:
        """Check a system prompt.

        Raises:
            InvalidInputError: It is blank, too long, or holds what no file can hold.
        """
        if system_prompt is not None:
            require_text("system_prompt", system_prompt, MAX_CONTENT)

    def agree_to_prompt(self, thread_id: str, session: Session | None = None) -> Thread:
        """Make the system prompt of a thread the user's instruction; return the thread.

        Raises:
            InvalidInputError: It has none.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot take it.
        """
        session = session or self._sessions.current()
        with self._repository.transaction():
            thread = self._get(thread_id)
            if thread.system_prompt is None:
                raise InvalidInputError("thread_id", "must be a thread with a prompt to agree to")
            self._note_prompt(thread_id, thread.system_prompt, session, agreed=True)
            self._sessions.audit(session, "thread.prompt_agreed", {"thread_id": thread_id})
            return self._get(thread_id)

    def _note_prompt(
        self, thread_id: str, system_prompt: str | None, session: Session, *, agreed: bool
    ) -> None:
        if system_prompt is not None:
            agreed = agreed or session.is_users
            consents = self._repository.consents
            consents.note("threads", thread_id, system_prompt, session.agent_id, agreed=agreed)

    def set_archived(self, thread_id: str, session: Session | None = None, *, archived: bool) -> Thread:
        """Take a thread out of the lists, or back into them; its memories stay in recall. Return it.

        Raises:
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot take it.
        """
        action = "thread.archived" if archived else "thread.unarchived"
        return self._change(thread_id, action, session, archived=int(archived))

    def _change(
        self, thread_id: str, action: str, session: Session | None, **columns: str | int | None
    ) -> Thread:
        session = session or self._sessions.current()
        with self._changes.recording(action, session):
            self._get(thread_id)
            self._repository.threads.change_threads([thread_id], **columns)
            self._sessions.audit(session, action, {"thread_id": thread_id})
        return self._repository.threads.get_thread(thread_id)

    def resume(self, thread_id: str, messages: int = 10) -> Digest:
        """Return what to go on from: up to `messages` (0 to 100) messages and 20 memories.

        The memories are the latest decisions, then summaries, facts and preferences.

        Raises:
            InvalidInputError: The number of messages is outside.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
        """
        require_range("limit", messages, 0, MAX_LIMIT)
        self._background.drop_expired()
        thread, table = self._get(thread_id), self._repository.memories
        return Digest(
            thread=thread,
            messages=tuple(self._repository.messages.list_of_thread(thread_id, messages)),
            memories=tuple(
                self._background.unexpired(
                    memory
                    for memory_type in WEIGHTIEST
                    for memory in table.list_of_thread(thread_id, OF_EACH_TYPE, memory_type)
                )
            ),
        )

    def delete(self, thread_id: str, memories: str, session: Session | None = None) -> Deleted:
        """Delete a thread with its messages; its memories become `global`, or `forget` them.

        What is forgotten is in the trash; undoing the change brings all of it back.

        Raises:
            InvalidInputError: `memories` is neither.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot take it, or no backup be made before very much goes.
            EmbedderError: A memory that becomes global cannot be embedded; nothing is done.
        """
        fate = next((fate for fate in FATES if fate == memories), None)
        if fate is None:
            rule = 'must be "global" or "forget": what becomes of the memories'
            raise InvalidInputError("memories", rule)
        session, table = session or self._sessions.current(), self._repository.memories
        self._get(thread_id)
        forgotten = table.list_of_thread(thread_id) if fate == "forget" else ()
        leaving = len(forgotten), len(self._repository.messages.list_of_thread(thread_id))
        with self._changes.recording("thread.deleted", session, leaving=leaving) as recorder:
            thread = self._get(thread_id)
            ids = [memory.id for memory in table.list_of_thread(thread_id)]
            if fate == "forget":
                table.delete_memories(ids)
            else:
                # Their vectors come later: another process could add to the thread while they are made.
                table.move_memories(ids, None, [None] * len(ids))
            said = [message.id for message in self._repository.messages.list_of_thread(thread_id)]
            self._repository.messages.delete_messages(said)
            self._repository.threads.delete_thread(thread_id)
            details = {"memories": len(ids), "messages": len(said), "fate": fate}
            self._sessions.audit(session, "thread.deleted", {"thread_id": thread_id, **details})
        lines = tuple(recorder.lines)
        return Deleted(thread, fate, tuple(ids), len(said), recorder.change_id, lines)

    def _get(self, thread_id: str) -> Thread:
        require_text("thread_id", thread_id, MAX_NAME)
        return self._repository.threads.get_thread(thread_id)


def unagreed_note(agent: str | None) -> str:
    """Name a prompt of a thread that is no instruction of the user's."""
    return f"Note of {plain(agent or 'an agent', 60)} on the thread, not agreed to by the user"


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


@dataclass(eq=False)
class Messages:
    """The service behind `save_messages` and `read_messages`."""

    _repository: Repository
    _changes: Changes
    _sessions: Sessions
    _tokens: TokenCounter
    _clock: Clock
    _days: Days

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
        days = self._days
        messages = [
            replace(m, created_at=m.created_at and parse_moment("created_at", m.created_at, days))
            for m in messages
        ]
        counts = [self._tokens.count(message.content) for message in messages]
        with self._changes.recording("messages.saved", session):
            self._repository.threads.get_thread(thread_id)
            last = self._repository.messages.list_of_thread(thread_id, len(messages))
            ends = (last[start:] for start in range(len(last)) if _are_same(last[start:], messages))
            known = [message.id for message in next(ends, ())]
            if not known and anywhere:
                table = self._repository.messages
                firsts = table.find_same(thread_id, messages[0])
                count = len(messages)
                runs = (table.list_of_thread(thread_id, count, first=first) for first in firsts)
                whole = (run for run in runs if len(run) == count and _are_same(run, messages))
                known = [message.id for message in next(whole, ())]
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
        self._repository.threads.change_threads([thread_id], last_active_at=now)
        details = (
            {"message_id": i, "thread_id": thread_id, "role": m.role, "characters": len(m.content)}
            for i, m in zip(ids, messages, strict=True)
        )
        self._sessions.audit(session, "message.stored", *details)
        return ids


def _are_same(stored: Sequence[Message], sent: Sequence[NewMessage]) -> bool:
    return all(
        (old.role, old.content) == (new.role, new.content) and new.created_at in (None, old.created_at)
        for old, new in zip(stored, sent, strict=False)
    )
