"""Who is using the store: their sessions, what they may send, and what they get back.

Breaking a rule of what may be sent changes nothing and names the rule.
"""

import logging
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from soulkeep.days import Days
from soulkeep.errors import HALF_A_PAIR, InvalidInputError, StoreBusyError, StoreError
from soulkeep.models import (
    LOCAL_AGENT,
    MEMORY_TYPES,
    MESSAGE_ROLES,
    Clock,
    Memory,
    MemoryFilter,
    NewMemory,
    NewMessage,
    Session,
    Usage,
    timestamp,
)
from soulkeep.repository import Repository
from soulkeep.wording import without_hidden

MAX_ID = 2**63 - 1
"""The largest id that a store gives."""

MAX_CONTENT = 100_000
MAX_ENTRY = 10_000
MAX_BATCH = 1_000
MAX_BATCH_CHARACTERS = 1_000_000
MAX_MESSAGES = 200
MAX_QUERY = 10_000
MAX_NAME = 200
MAX_LIMIT = 100
MAX_PRIORITY = 1_000_000

_SURROGATE = re.compile("[\ud800-\udfff]")
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})([T ].+)?")
_FORM = "must be a date like 2026-11-22 or a time like 2026-11-22T16:42:00Z"


def require_text(argument: str, value: str, maximum: int) -> None:
    """Check that `value` is text with something in it.

    Raises:
        InvalidInputError: It is blank, longer than `maximum` characters, or holds a NUL character or
            half of a surrogate pair, which no UTF-8 file can hold.
    """
    if not value.strip():
        raise InvalidInputError(argument, "must not be blank; give the text")
    if len(value) > maximum:
        rule = f"has {len(value):,} characters and may have {maximum:,}; shorten or split it"
        raise InvalidInputError(argument, rule)
    if "\0" in value:
        raise InvalidInputError(argument, "holds a NUL character; remove it")
    if _SURROGATE.search(value):
        raise InvalidInputError(argument, HALF_A_PAIR)


def require_label(argument: str, value: str) -> str:
    """Check a title, name, subject or source; return it as it is kept, without hidden characters.

    Raises:
        InvalidInputError: It breaks a rule of `require_text`, or nothing of it can be seen.
    """
    label = without_hidden(value).strip()
    require_text(argument, label, MAX_NAME)
    return label


def require_range(argument: str, value: int, lowest: int, highest: int) -> None:
    """Check that `lowest` <= `value` <= `highest`.

    Raises:
        InvalidInputError: It is outside.
    """
    if not lowest <= value <= highest:
        raise InvalidInputError(argument, f"must be from {lowest:,} to {highest:,}")


def require_memory_type(value: str) -> None:
    """Check that `value` is one of the four memory types.

    Raises:
        InvalidInputError: It is not.
    """
    if value not in MEMORY_TYPES:
        raise InvalidInputError("memory_type", f"must be one of {', '.join(MEMORY_TYPES)}")


def require_memories(memories: Sequence[NewMemory], days: Days) -> None:
    """Check memories that are to be kept in one call.

    Raises:
        InvalidInputError: There are none, too many, or one breaks a rule.
    """
    if not 1 <= len(memories) <= MAX_BATCH:
        raise InvalidInputError(
            "memories", f"holds {len(memories):,} and may hold 1 to {MAX_BATCH:,}; give several lists"
        )
    for memory in memories:
        require_text("content", memory.content, MAX_CONTENT)
        require_memory_type(memory.memory_type)
        for argument in ("source", "thread_id", "subject"):
            value = getattr(memory, argument)
            if value is not None:
                require_text(argument, value, MAX_NAME)
        for argument in ("occurred_at", "expires_at"):
            if (moment := getattr(memory, argument)) is not None:
                parse_moment(argument, moment, days)
    _require_total("memories", memories)


def require_messages(messages: Sequence[NewMessage], days: Days) -> None:
    """Check messages that are to be kept in one call.

    Raises:
        InvalidInputError: There are none, too many, or one breaks a rule.
    """
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidInputError(
            "messages", f"holds {len(messages):,} and may hold 1 to {MAX_MESSAGES}; give several lists"
        )
    for message in messages:
        if message.role not in MESSAGE_ROLES:
            raise InvalidInputError("role", f"must be one of {', '.join(MESSAGE_ROLES)}")
        require_text("content", message.content, MAX_CONTENT)
        if message.created_at is not None:
            parse_moment("created_at", message.created_at, days)
    _require_total("messages", messages)


def _require_total(argument: str, kept: Sequence[NewMemory] | Sequence[NewMessage]) -> None:
    total = sum(len(one.content) for one in kept)
    if total > MAX_BATCH_CHARACTERS:
        raise InvalidInputError(
            argument,
            f"has {total:,} characters in all and may have {MAX_BATCH_CHARACTERS:,}; give several lists",
        )


def parse_filter(
    thread_id: str | None,
    memory_type: str | None,
    since: str | None,
    until: str | None,
    days: Days,
) -> MemoryFilter:
    """Build a filter; a date means the whole of that day, and a time without a zone is the user's.

    Raises:
        InvalidInputError: The type is unknown, a date is none, or `since` is after `until`.
    """
    if thread_id is not None:
        require_text("thread_id", thread_id, MAX_NAME)
    if memory_type is not None:
        require_memory_type(memory_type)
    first = None if since is None else parse_moment("since", since, days)
    last = None if until is None else parse_moment("until", until, days, end_of_day=True)
    if first and last and first > last:
        raise InvalidInputError("since", "must not be after `until`; swap the two")
    return MemoryFilter(thread_id, memory_type, first, last)


def parse_moment(argument: str, value: str, days: Days, *, end_of_day: bool = False) -> str:
    """Return the timestamp of an ISO time, or of the first (or last) moment of an ISO date.

    Dates, and times without a zone, are the user's.

    Raises:
        InvalidInputError: It is neither.
    """
    match = _DATE.fullmatch(value.strip())
    if match is None:
        raise InvalidInputError(argument, _FORM)
    try:
        moment = datetime.fromisoformat(match[0])
        if match[2] is not None:
            return timestamp(days.utc(moment))
        day = moment.date()
        return timestamp(days.last_moment(day) if end_of_day else days.first_moment(day))
    except (ValueError, OverflowError):
        raise InvalidInputError(argument, _FORM) from None


def parse_expiry(value: str, days: Days, now: str) -> str:
    """Return the timestamp of an expiry; one that is a date is the last moment of that day.

    Raises:
        InvalidInputError: It is neither a date nor a time, or not after the timestamp `now`.
    """
    moment = parse_moment("expires_at", value, days, end_of_day=True)
    if moment <= now:
        rule = "has passed already; give a date or time to come, or leave it out"
        raise InvalidInputError("expires_at", rule)
    return moment


RECALLED = "memory.recalled"
"""The event that makes recalls countable."""

IMPORTED = "memories.imported"
"""The event, and the change, of taking in what another program remembers."""

KEPT = 100_000
"""How many uses of models, audited events and sessions are kept. Each recall adds one of the first two,
each connection of a client one of the last."""

LOOKED_EACH = 1_000
"""After so many records a process looks again whether there are too many."""

MAX_WAITING = 1_000
"""How many records wait in memory while another process writes; the oldest are given up for new ones."""

_MAX_AGENT = 100

_log = logging.getLogger(__name__)

Event = tuple[str, Mapping[str, Any]]
"""The name of an event, and details, which never hold user text."""

_Record = tuple[Session, Usage | Event | None, str]


@dataclass(eq=False)
class Sessions:
    """Opens sessions and writes what they did into usage_records and audit_log.

    What is only bookkeeping never fails or delays a call: it is written when nobody else writes.
    """

    _repository: Repository
    _clock: Clock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _local: Session | None = None
    unwritten: deque[_Record] = field(default_factory=deque)
    """What waits in memory."""
    _until_look: int = 0
    _logged: str = ""
    _is_closed: bool = False
    write_later: Callable[[], None] | None = None
    """Lets another thread `flush`, where a call is not to write what is only bookkeeping."""
    write_soon: Callable[[], object] | None = None
    """Lets that thread do it at once and waits a moment for it, where what waits is about to be read."""

    def current(self) -> Session:
        """Return the one session that all runs of the command line share."""
        with self._lock:
            if self._local is None:
                self._local = Session(LOCAL_AGENT, LOCAL_AGENT, LOCAL_AGENT, timestamp(self._clock()))
                self.record(self._local)
            return self._local

    def open(self, agent_id: str) -> Session:
        """Open a session for a client's connection, whatever others of its name there are."""
        name, session_id = agent_id.strip()[:_MAX_AGENT] or "default", secrets.token_hex(8)
        session = Session(session_id, f"{name}:{session_id}", name, timestamp(self._clock()))
        self.record(session)
        return session

    def audit(self, session: Session, event: str, *details: Mapping[str, Any]) -> None:
        """Record changes, inside the transaction that makes them; details never hold user text."""
        now = timestamp(self._clock())
        self._repository.ledger.touch_session(session, now)
        self._repository.ledger.add_audit(event, session.agent_id, details, now)

    def record(self, session: Session, what: Usage | Event | None = None, *, flush: bool = True) -> None:
        """Record one use of a model, an event that changed nothing, or only that the session is active.

        While another process writes, it waits in memory; without `flush` it waits for the next record
        too, so that both are one write.
        """
        while len(self.unwritten) >= MAX_WAITING:
            self.unwritten.popleft()
        self.unwritten.append((session, what, timestamp(self._clock())))
        if flush:
            (self.write_later or self.flush)()

    def flush(self) -> None:
        """Write what waits in memory, unless another process is writing or the store takes nothing."""
        if self._is_closed or not self.unwritten or self._repository.in_transaction():
            return
        if not self._writing.acquire(blocking=False):
            return  # another thread is at it
        try:
            self._write()
        except StoreBusyError:
            return
        except StoreError as error:
            # On a full disk it would be said at each call.
            if self._logged != str(error):
                _log.warning("usage was not recorded: %s", error)
            self._logged = str(error)
        finally:
            self._writing.release()

    def _write(self) -> None:
        pending = list(self.unwritten)
        with self._repository.transaction(durable=False, waiting=False):
            for session, now in {session: now for session, _, now in pending}.items():
                self._repository.ledger.touch_session(session, now)
            for session, what, now in pending:
                if isinstance(what, Usage):
                    self._repository.ledger.add_usage(session.id, what, now)
                elif what is not None:
                    self._repository.ledger.add_audit(what[0], session.agent_id, [what[1]], now)
            self._until_look -= len(pending)
            if self._until_look <= 0:
                self._until_look = LOOKED_EACH
                self._repository.ledger.drop_old(KEPT)
        for record in pending:
            # Another thread may have given up some of them meanwhile.
            if self.unwritten and self.unwritten[0] is record:
                self.unwritten.popleft()

    def close(self) -> None:
        """Write what can be written now and forget the rest: it is not worth a client's wait."""
        self.flush()
        self._is_closed = True
        self.unwritten.clear()


@dataclass(frozen=True, slots=True)
class Similar:
    """An existing memory close to a new one; `similarity` is their cosine, absent without vectors."""

    memory: Memory
    similarity: float | None


@dataclass(frozen=True, slots=True)
class LineChange:
    """What became of a line of MEMORY.md that a memory was promoted to.

    It was `changed` to the text that came in its place, `removed`, or `kept` as the user had edited it;
    or it is `back`, or `missing` where its place is not there any more.
    """

    memory_id: int
    section: str
    outcome: Literal["changed", "removed", "kept", "back", "missing"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one memory that was to be kept.

    `id` is the new memory's, or the older one's where `stored` is false because that states exactly the
    same. `similar` is None where nobody looked: in a long list. `replaced` are the memories in whose
    place it is now; `newer` holds, for ids of older versions that were given for them, the newest ones.
    `lines` says what became of lines promoted from those that it replaced. `change_id` is the change to
    undo, 0 where nothing changed. An expiry that had passed is cleared by a revision.
    """

    id: int
    stored: bool
    similar: tuple[Similar, ...] | None = ()
    replaced: tuple[int, ...] = ()
    newer: Mapping[int, int] = field(default_factory=dict)
    lines: tuple[LineChange, ...] = ()
    expires_at: str | None = None
    change_id: int = 0
    expiry_cleared: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of memories: as they are now, or were until they were forgotten.

    `newer` holds, for ids of older versions that were given, the newest ones. The change can be undone
    by its id; it is 0 where nothing changed. `lines` says what became of lines promoted from them,
    `expiry_cleared` which of them came back without an expiry that had passed.
    """

    memories: tuple[Memory, ...]
    newer: Mapping[int, int]
    change_id: int
    lines: tuple[LineChange, ...] = ()
    expiry_cleared: tuple[int, ...] = ()
