"""Who is using the store: sessions, the usage they cause and the changes they make."""

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from soulkeep.errors import StoreBusyError, StoreError
from soulkeep.models import LOCAL_AGENT, Clock, Session, Usage, timestamp
from soulkeep.repository import Repository

RECALLED = "memory.recalled"
"""The event that makes recalls countable."""

KEPT = 100_000
"""How many uses of models, audited events and sessions are kept. Each recall adds one of the first two,
each connection of a client one of the last."""

LOOKED_EACH = 1_000
"""After so many records a process looks again whether there are too many."""

MAX_WAITING = 1_000
"""How many records wait in memory while another process writes; the oldest are given up for new ones."""

_MAX_AGENT = 100

_log = logging.getLogger(__name__)

_Event = tuple[str, Mapping[str, Any]]
_Record = tuple[Session, Usage | _Event | None, str]


class Sessions:
    """Opens sessions and writes what they did into usage_records and audit_log.

    What is only bookkeeping never fails or delays a call: it is written when nobody else writes.
    """

    def __init__(self, repository: Repository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._local: Session | None = None
        self._unwritten: deque[_Record] = deque()
        self._until_look = 0
        self._logged = ""
        self._is_closed = False
        self.write_later: Callable[[], None] | None = None
        """Lets another thread `flush`, where a call is not to write what is only bookkeeping."""

    def current(self) -> Session:
        """Return the one session that all runs of the command line share."""
        with self._lock:
            if self._local is None:
                now = self._now()
                self._local = self._start(Session(LOCAL_AGENT, LOCAL_AGENT, LOCAL_AGENT, now))
            return self._local

    def open(self, agent_id: str) -> Session:
        """Open a session for a client's connection, whatever others of its name there are."""
        name, session_id = agent_id.strip()[:_MAX_AGENT] or "default", secrets.token_hex(8)
        return self._start(Session(session_id, f"{name}:{session_id}", name, self._now()))

    def _start(self, session: Session) -> Session:
        self._wait_with((session, None, session.created_at))
        self._write_soon()
        return session

    def audit(self, session: Session, event: str, *details: Mapping[str, Any]) -> None:
        """Record changes, inside the transaction that makes them; details never hold user text."""
        now = self._now()
        self._repository.ledger.touch_session(session, now)
        self._repository.ledger.add_audit(event, session.agent_id, details, now)

    def record_usage(self, session: Session, usage: Usage, *, flush: bool = True) -> None:
        """Record one use of a model; while another process writes, it waits in memory.

        Without `flush` it waits for the next record too, so that both are one write.
        """
        self._wait_with((session, usage, self._now()))
        if flush:
            self._write_soon()

    def note(self, session: Session, event: str, details: Mapping[str, Any]) -> None:
        """Record what changed nothing, as `record_usage` does; details never hold user text."""
        self._wait_with((session, (event, details), self._now()))
        self._write_soon()

    def _write_soon(self) -> None:
        if self.write_later is None:
            self.flush()
        else:
            self.write_later()

    @property
    def has_unwritten(self) -> bool:
        """Whether something waits in memory."""
        return bool(self._unwritten)

    def _wait_with(self, record: _Record) -> None:
        while len(self._unwritten) >= MAX_WAITING:
            self._unwritten.popleft()
        self._unwritten.append(record)

    def flush(self) -> None:
        """Write what waits in memory, unless another process is writing or the store takes nothing."""
        if self._is_closed or not self._unwritten or self._repository.in_transaction:
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
        pending = list(self._unwritten)
        with self._repository.transaction(durable=False, waiting=False):
            for session, what, now in pending:
                self._repository.ledger.touch_session(session, now)
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
            if self._unwritten and self._unwritten[0] is record:
                self._unwritten.popleft()

    def last_event(self) -> int:
        """Return the id of the last event in the log; 0 where there is none."""
        return self._repository.ledger.last_event()

    def events_after(self, event_id: int) -> set[str]:
        """Return the names of the events after one."""
        return self._repository.ledger.events_after(event_id)

    def close(self) -> None:
        """Write what can be written now and forget the rest: it is not worth a client's wait."""
        self.flush()
        self._is_closed = True
        self._unwritten.clear()

    def _now(self) -> str:
        return timestamp(self._clock())
