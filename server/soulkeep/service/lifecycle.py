"""The rest of a memory's life: listed, revised, moved, forgotten, brought back."""

from collections.abc import Sequence
from dataclasses import dataclass

from soulkeep.days import Days
from soulkeep.errors import InvalidInputError, MemoryNotFoundError
from soulkeep.models import ChangedRow, Memory, MemoryFilter, MemoryType, NewMemory, Receipt, Session
from soulkeep.ranking import query_terms
from soulkeep.repository import Repository
from soulkeep.service.changes import Changes
from soulkeep.service.memories import Memories
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_BATCH,
    MAX_LIMIT,
    MAX_NAME,
    MAX_QUERY,
    parse_filter,
    require_range,
    require_text,
)

MAX_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Past:
    """A memory as it was until a change, and the memory that came in its place, if one did."""

    memory: Memory
    change_id: int
    replaced_by: int | None


class Lifecycle:
    """Changes memories; everything it does can be undone within the retention."""

    def __init__(
        self,
        repository: Repository,
        memories: Memories,
        changes: Changes,
        sessions: Sessions,
        days: Days,
    ) -> None:
        self._repository = repository
        self._memories = memories
        self._changes = changes
        self._sessions = sessions
        self._days = days

    def list_memories(
        self,
        *,
        limit: int = 50,
        below: int | None = None,
        thread_id: str | None = None,
        memory_type: str | None = None,
        subject: str | None = None,
        source: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> list[Memory]:
        """Return up to `limit` (1 to 1,000) memories, the latest kept first, with ids under `below`.

        A thread lets its own and the global ones pass.

        Raises:
            InvalidInputError: An argument breaks a rule.
            ThreadNotFoundError: The thread does not exist.
        """
        require_range("limit", limit, 1, MAX_PAGE)
        allowed = parse_filter(thread_id, memory_type, since, until, self._days)
        if thread_id is not None:
            self._repository.threads.get_thread(thread_id)
        given = {name: value for name, value in (("subject", subject), ("source", source)) if value}
        return self._repository.memories.list_memories(allowed, limit, below, **given)

    def history(self, memory_id: int) -> list[Past]:
        """Return what a memory was before its changes, and what it replaced, oldest first.

        Raises:
            MemoryNotFoundError: There is none with this id, neither now nor in the kept past.
        """
        rows = self._repository.changes.rows_about("memories", str(memory_id))
        if not rows:
            self._repository.memories.get_memory(memory_id)
        replaced = self._repository.changes.rows_replaced_by(memory_id)
        return [past for row in (*replaced, *rows) if (past := _past(row)) is not None]

    def find_ids(self, typed: str) -> list[int]:
        """Return ids that begin with what was typed, latest first, or those of memories with its words.

        Raises:
            StoreError: The store cannot be read.
        """
        if not typed.strip() or typed.isdecimal():
            latest = self._repository.memories.list_memories(MemoryFilter(), MAX_PAGE)
            return [memory.id for memory in latest if str(memory.id).startswith(typed)]
        terms = query_terms(typed[:MAX_QUERY])
        matching = self._repository.memories.matching(terms, MemoryFilter(), MAX_LIMIT)
        return [memory_id for memory_id, _ in matching]

    def forget(self, memory_ids: Sequence[int], session: Session | None = None) -> list[Memory]:
        """Move memories to the trash, from where they can be restored; return them.

        Raises:
            InvalidInputError: There are none, too many, or one is an entry of a document.
            MemoryNotFoundError: One does not exist; nothing is done.
            StoreError: The store cannot do it, or no backup be made before very many go.
        """
        session = session or self._sessions.current()
        gone = self._own(memory_ids)
        with self._changes.recording("memory.forgotten", session, leaving=(len(gone), 0)) as recorder:
            recorder.touch("memories", [memory.id for memory in gone])
            self._repository.memories.delete_memories([memory.id for memory in gone])
            self._sessions.audit(session, "memory.forgotten", *({"memory_id": m.id} for m in gone))
        return gone

    def restore(self, memory_id: int, session: Session | None = None) -> Memory:
        """Bring a memory back from the trash.

        Raises:
            MemoryNotFoundError: It is not in the trash.
            UndoConflictError: Its thread is gone.
        """
        rows = self._repository.changes.rows_about("memories", str(memory_id))
        if not rows or rows[-1].after is not None or rows[-1].before is None:
            raise MemoryNotFoundError(memory_id)
        self._changes.put_back(rows[-1], "memory.restored", session)
        return self._repository.memories.get_memory(memory_id)

    def list_trash(self, limit: int = 50, before: int | None = None) -> list[Past]:
        """Return up to `limit` (1 to 1,000) memories in the trash, the latest gone first.

        Raises:
            InvalidInputError: The limit is outside.
        """
        require_range("limit", limit, 1, MAX_PAGE)
        rows = self._repository.changes.list_trash(limit, before)
        return [past for row in rows if (past := _past(row)) is not None]

    def revise(
        self,
        memory_id: int,
        content: str,
        *,
        memory_type: MemoryType | None = None,
        subject: str | None = None,
        session: Session | None = None,
    ) -> Receipt:
        """Put a new version in the place of a memory, which leaves recall and stays in the history.

        What is not given is taken over; the new version happened now.

        Raises:
            MemoryNotFoundError: There is no such memory.
            InvalidInputError: A value breaks a rule, or it is an entry of a document.
        """
        (old,) = self._own([memory_id])
        new = NewMemory(
            content=content,
            memory_type=memory_type or old.memory_type,
            thread_id=old.thread_id,
            source=old.source,
            subject=subject or old.subject,
            expires_at=old.expires_at,
        )
        (receipt,) = self._memories.remember([new], session, replaces=[memory_id])
        return receipt

    def move(
        self, memory_ids: Sequence[int], thread_id: str | None, session: Session | None = None
    ) -> list[Memory]:
        """Move memories to a thread, or with None make them global; return them as they are now.

        Raises:
            InvalidInputError: There are none, too many, or one is an entry of a document.
            MemoryNotFoundError: One does not exist; nothing is done.
            ThreadNotFoundError: The thread does not exist.
        """
        session = session or self._sessions.current()
        if thread_id is not None:
            require_text("thread_id", thread_id, MAX_NAME)
            self._repository.threads.get_thread(thread_id)
        moved = self._own(memory_ids)
        vectors = self._changes.embed([m._replace(thread_id=thread_id) for m in moved], session)
        with self._changes.recording("memory.moved", session) as recorder:
            ids = [memory.id for memory in moved]
            recorder.touch("memories", ids)
            self._repository.memories.move_memories(ids, thread_id)
            self._repository.vectors.replace_vectors(ids, vectors)
            self._sessions.audit(session, "memory.moved", {"memory_ids": ids, "thread_id": thread_id})
        return list(self._repository.memories.list_by_ids(ids).values())

    def _own(self, memory_ids: Sequence[int]) -> list[Memory]:
        if not 1 <= len(set(memory_ids)) <= MAX_BATCH:
            rule = f"must hold 1 to {MAX_BATCH:,} ids; send several lists"
            raise InvalidInputError("memory_ids", rule)
        found = self._repository.memories.list_by_ids(list(dict.fromkeys(memory_ids)))
        for memory_id in memory_ids:
            if memory_id not in found:
                raise MemoryNotFoundError(memory_id)
            if (document := found[memory_id].document) is not None:
                rule = f"holds {memory_id}, an entry of {document}; change that document instead"
                raise InvalidInputError("memory_ids", rule)
        return list(found.values())


def _past(row: ChangedRow) -> Past | None:
    if row.before is None:
        return None
    return Past(Memory.of_row(row.before), row.change_id, row.replaced_by)
