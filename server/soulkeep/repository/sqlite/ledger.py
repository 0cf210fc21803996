"""Who was connected, what was said, what it cost and what changed: sessions, messages, usage, audit."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soulkeep.models import (
    MODEL_USED,
    LogEntry,
    MemoryFilter,
    Message,
    MessageMatch,
    ModelUsage,
    NewMessage,
    Session,
    Usage,
)
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.indexes import conditions, fts_term, fts_text
from soulkeep.repository.values import THREAD_KEY, UNKNOWN_MODEL

_USAGE = "usage_records AS u LEFT JOIN unpriced_usage AS x ON x.usage_id = u.id"
_COST = "iif(count(x.usage_id), NULL, ifnull(sum(u.cost), 0.0))"
"""Nobody knows a sum of which one part is unknown."""

_LOG = f"""
SELECT * FROM (
  SELECT timestamp, ifnull(source_app, '') AS agent, event, details FROM audit_log
  WHERE timestamp >= :since
  AND (:agent IS NULL OR source_app = :agent OR instr(source_app, :agent || '/') = 1)
  AND (:event IS NULL OR event = :event OR event LIKE :event || '.%') ORDER BY id DESC LIMIT :limit
) UNION ALL SELECT * FROM (
  SELECT u.timestamp, s.agent_id, '{MODEL_USED}', json_object('input_tokens', u.input_tokens,
    'output_tokens', u.output_tokens, 'cost', iif(x.usage_id IS NULL, u.cost, NULL), 'model', u.model)
  FROM {_USAGE} JOIN sessions AS s ON s.id = u.session_id
  WHERE u.timestamp >= :since
  AND (:agent IS NULL OR s.agent_id = :agent OR instr(s.agent_id, :agent || '/') = 1)
  AND (:event IS NULL OR :event IN ('model', '{MODEL_USED}')) ORDER BY u.id DESC LIMIT :limit
) ORDER BY 1 DESC LIMIT :limit"""


@dataclass(eq=False)
class Ledger:
    """Rows of sessions, messages, usage_records and audit_log; writes go inside a transaction."""

    _database: Database

    def touch_session(self, session: Session, now: str) -> None:
        """Record that a session is active, inserting it when it is new."""
        self._database.execute(
            "INSERT INTO sessions (id, session_key, agent_id, model, created_at, last_active_at)"
            " VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (session_key) DO UPDATE SET last_active_at = excluded.last_active_at",
            (session.id, session.key, session.agent_id, UNKNOWN_MODEL, session.created_at, now),
        )

    def add_usage(self, session_id: str, usage: Usage, now: str) -> None:
        """Insert one use of a model."""
        rows = self._database.execute(
            "INSERT INTO usage_records (session_id, model, input_tokens, output_tokens,"
            " total_tokens, cost, timestamp) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                session_id,
                usage.model,
                usage.input_tokens,
                usage.output_tokens,
                usage.input_tokens + usage.output_tokens,
                usage.cost or 0.0,
                now,
            ),
        )
        if usage.cost is None:
            self._database.execute("INSERT INTO unpriced_usage (usage_id) VALUES (?)", rows[0])

    def usage_by_model(self) -> list[ModelUsage]:
        """Return the sums for each model, the most used first."""
        rows = self._database.query(
            f"SELECT u.model, count(*), sum(u.input_tokens), sum(u.output_tokens), {_COST}"
            f" FROM {_USAGE} GROUP BY u.model ORDER BY count(*) DESC, u.model"
        )
        return [ModelUsage(*row) for row in rows]

    def erased_at(self, memory_id: int) -> str | None:
        """Return when a memory was purged, if the log still knows."""
        rows = self._database.query(
            "SELECT max(timestamp) FROM audit_log WHERE event = 'memory.purged'"
            " AND EXISTS (SELECT 1 FROM json_each(details, '$.memory_ids') WHERE value = ?)",
            (memory_id,),
        )
        return None if rows[0][0] is None else str(rows[0][0])

    def list_log(self, limit: int, since: str, agent: str | None, event: str | None) -> list[LogEntry]:
        """Return up to `limit` audited events and uses of models since a timestamp, newest first.

        `event` is a whole name, or what stands before its dot.
        """
        values = {"limit": limit, "since": since, "agent": agent, "event": event}
        rows = self._database.query(_LOG, values)
        entries = []
        for at, who, what, text in rows:
            try:
                details = json.loads(text or "{}")
            except ValueError:
                details = text  # another program's row
            noted = details if isinstance(details, dict) else {"details": details}
            entries.append(LogEntry(at, who, what, noted))
        return entries

    def drop_old(self, kept: int) -> None:
        """Keep the latest `kept` uses of models, audited events and sessions; inside a transaction.

        Of older uses the sums stay, as one record a model; of older sessions those that something else
        belongs to, and the conversations of threads, whose messages may come back.
        """
        self._database.execute(
            "DELETE FROM audit_log WHERE id <= (SELECT max(id) FROM audit_log) - ?", (kept,)
        )
        self._add_up_usage(kept)
        self._database.execute(
            "DELETE FROM sessions WHERE rowid <= (SELECT max(rowid) FROM sessions) - ?"
            f" AND session_key NOT GLOB '{THREAD_KEY}*'"
            " AND NOT EXISTS (SELECT 1 FROM messages WHERE session_id = sessions.id)"
            " AND NOT EXISTS (SELECT 1 FROM usage_records WHERE session_id = sessions.id)",
            (kept,),
        )

    def _add_up_usage(self, kept: int) -> None:
        rows = self._database.query("SELECT max(id) - ?, min(id) FROM usage_records", (kept,))
        last, first = rows[0]
        if first is None or first > last:
            return
        unpriced = "id IN (SELECT usage_id FROM unpriced_usage)"
        for condition in (f"NOT {unpriced}", unpriced):
            newest = self._database.query("SELECT max(id) FROM usage_records")[0][0]
            self._database.execute(
                "INSERT INTO usage_records (session_id, model, input_tokens, output_tokens,"
                " total_tokens, cost, timestamp) SELECT min(session_id), model, sum(input_tokens),"
                " sum(output_tokens), sum(total_tokens), sum(cost), max(timestamp) FROM usage_records"
                f" WHERE id <= ? AND {condition} GROUP BY model",
                (last,),
            )
        self._database.execute(
            "INSERT INTO unpriced_usage (usage_id) SELECT id FROM usage_records WHERE id > ?", (newest,)
        )
        self._database.execute("DELETE FROM unpriced_usage WHERE usage_id <= ?", (last,))
        self._database.execute("DELETE FROM usage_records WHERE id <= ?", (last,))

    def add_audit(
        self, event: str, source_app: str, details: Sequence[Mapping[str, Any]], now: str
    ) -> None:
        """Insert changes of one kind; `details` hold ids and sizes, never what the user wrote."""
        self._database.execute(
            "INSERT INTO audit_log (timestamp, event, source_app, details)"
            " SELECT ?, ?, ?, value FROM json_each(?) WHERE TRUE ORDER BY key",
            (now, event, source_app, json.dumps(details)),
        )


_COLUMNS = "m.id, m.session_id, m.role, m.content, m.created_at, m.token_count"
_OF_THREAD = "messages AS m WHERE m.session_id = (SELECT id FROM sessions WHERE session_key = :key)"
_PASSING = {
    "thread_id": f"s.session_key = '{THREAD_KEY}' || :thread_id",
    "since": "m.created_at >= :since",
    "until": "m.created_at <= :until",
}
_PAGE = 1_000


@dataclass(eq=False)
class MessageTable:
    """Rows of messages that belong to threads, with their entries in the full-text index."""

    _database: Database
    _ledger: Ledger

    def add_messages(
        self,
        thread_id: str,
        agent_id: str,
        messages: Sequence[NewMessage],
        tokens: Sequence[int],
        now: str,
    ) -> list[int]:
        """Insert messages of a thread with their counts of tokens, in a transaction. Return the ids."""
        key = f"{THREAD_KEY}{thread_id}"
        self._ledger.touch_session(Session(secrets.token_hex(8), key, agent_id, now), now)
        rows = self._database.execute_many(
            "INSERT INTO messages (session_id, role, content, created_at, token_count)"
            " SELECT id, ?, ?, ?, ? FROM sessions WHERE session_key = ? RETURNING id, content",
            (
                (m.role, m.content, m.created_at or now, count, key)
                for m, count in zip(messages, tokens, strict=True)
            ),
        )
        self.index(rows)
        return [row[0] for row in rows]

    def delete_messages(self, message_ids: Iterable[int]) -> None:
        """Delete messages with their index entries; inside a transaction."""
        keys = [(message_id,) for message_id in message_ids]
        self._database.execute_many("DELETE FROM messages_fts WHERE rowid = ?", keys)
        self._database.execute_many("DELETE FROM messages WHERE id = ?", keys)

    def list_of_thread(
        self, thread_id: str, limit: int = -1, *, before: int | None = None, first: int | None = None
    ) -> list[Message]:
        """Return a thread's last messages, below `before`, or its next from `first` on, in order."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM {_OF_THREAD} AND m.id BETWEEN :first AND :last"
            f" ORDER BY m.id {'DESC' if first is None else 'ASC'} LIMIT :limit",
            {
                "key": f"{THREAD_KEY}{thread_id}",
                "first": first or 0,
                "last": 2**62 if before is None else before - 1,
                "limit": limit,
            },
        )
        messages = [Message(*row) for row in rows]
        return messages[::-1] if first is None else messages

    def find_same(self, thread_id: str, message: NewMessage) -> list[int]:
        """Return the ids of a thread's messages of this role, content and date."""
        rows = self._database.query(
            f"SELECT m.id FROM {_OF_THREAD} AND m.role = :role AND m.created_at = :created_at"
            " AND m.content = :content ORDER BY m.id",
            {
                "key": f"{THREAD_KEY}{thread_id}",
                "role": message.role,
                "created_at": message.created_at,
                "content": message.content,
            },
        )
        return [row[0] for row in rows]

    def matching(self, terms: Sequence[str], allowed: MemoryFilter, limit: int) -> list[MessageMatch]:
        """Return up to `limit` messages that have any of the words `terms`, best first by BM25.

        Without a thread, those of all threads may pass.
        """
        if not terms:
            return []
        where, values = conditions(allowed, _PASSING)
        rows = self._database.query(
            f"SELECT {_COLUMNS}, substr(s.session_key, {len(THREAD_KEY) + 1}), -f.rank"
            " FROM messages_fts AS f CROSS JOIN messages AS m ON m.id = f.rowid"
            " CROSS JOIN sessions AS s ON s.id = m.session_id"
            f" WHERE messages_fts MATCH :terms{where} ORDER BY f.rank, m.id DESC LIMIT :limit",
            {**values, "terms": " OR ".join(map(fts_term, terms)), "limit": limit},
        )
        return [MessageMatch(Message(*row[:-2]), row[-2], row[-1]) for row in rows]

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the messages of threads; inside a transaction."""
        self._database.execute("DELETE FROM messages_fts")
        last = 0
        while page := self._database.query(
            "SELECT m.id, m.content FROM messages AS m JOIN sessions AS s ON s.id = m.session_id"
            f" WHERE s.session_key GLOB '{THREAD_KEY}*' AND m.id > ? ORDER BY m.id LIMIT ?",
            (last, _PAGE),
        ):
            self.index(page)
            last = page[-1][0]

    def index(self, messages: Iterable[Sequence[Any]]) -> None:
        """Add rows of id and content to the full text; inside a transaction."""
        self._database.execute_many(
            "INSERT INTO messages_fts (rowid, content) VALUES (?, ?)",
            ((message_id, fts_text(content)) for message_id, content in messages),
        )
