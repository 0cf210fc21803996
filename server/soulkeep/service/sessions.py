"""Who is using the store: sessions, the usage they cause and the changes they make."""

import secrets
import threading
from collections import deque
from contextlib import suppress
from typing import Any

from soulkeep.errors import StoreBusyError
from soulkeep.models import Clock, Session, Usage, timestamp
from soulkeep.repository import Repository

LOCAL_AGENT = "soulkeep"
"""The agent_id of the command line and of Python code that uses the services directly."""

_MAX_AGENT = 100


class Sessions:
    """Opens sessions and writes what they did into usage_records and audit_log."""

    def __init__(self, repository: Repository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self._unwritten: deque[tuple[str, Usage, str]] = deque()

    def current(self, agent_id: str = LOCAL_AGENT) -> Session:
        """Return this process's session for a client, opening it on first use.

        Each client process has a session of its own; all runs of the command line share one.
        """
        agent_id = agent_id.strip()[:_MAX_AGENT] or "default"
        with self._lock:
            if agent_id not in self._open:
                self._open[agent_id] = self._start(agent_id)
            return self._open[agent_id]

    def _start(self, agent_id: str) -> Session:
        session = Session(secrets.token_hex(8), agent_id)
        local = agent_id == LOCAL_AGENT
        session_key = LOCAL_AGENT if local else f"{agent_id}:{session.id}"
        with self._repository.transaction(durable=False):
            return self._repository.ledger.add_session(session, session_key, self._now())

    def audit(self, session: Session, event: str, **details: Any) -> None:
        """Record a change, inside the transaction that makes it; details never hold user text."""
        now = self._now()
        self._repository.ledger.add_audit(event, session.agent_id, details, now)
        self._repository.ledger.touch_session(session.id, now)

    def record_usage(self, session: Session, usage: Usage) -> None:
        """Record one use of a model, without ever waiting for another process's write.

        While another process holds the write lock, records wait in memory for the next call.
        """
        self._unwritten.append((session.id, usage, self._now()))
        self.flush()

    def flush(self) -> None:
        """Write the usage records that are still in memory, unless another process is writing."""
        if self._unwritten:
            with suppress(StoreBusyError), self._repository.without_waiting():
                self._write_usage()

    def _write_usage(self) -> None:
        pending = list(self._unwritten)
        with self._repository.transaction(durable=False):
            for session_id, usage, now in pending:
                self._repository.ledger.add_usage(session_id, usage, now)
                self._repository.ledger.touch_session(session_id, now)
        for _ in pending:
            self._unwritten.popleft()

    def close(self) -> None:
        """Write what can be written now and forget the rest: usage is not worth a client's wait."""
        self.flush()
        self._unwritten.clear()

    def _now(self) -> str:
        return timestamp(self._clock())
