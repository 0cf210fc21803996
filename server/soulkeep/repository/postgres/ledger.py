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
from soulkeep.repository.postgres.database import NEXT_IDS, NO_LIMIT, Database, columns_of, limited
from soulkeep.repository.postgres.words import FullText, conditions
from soulkeep.repository.values import THREAD_KEY, UNKNOWN_MODEL

_USAGE = "usage_records AS u LEFT JOIN unpriced_usage AS x ON x.owner = u.owner AND x.usage_id = u.id"
_COST = "CASE WHEN count(x.usage_id) = 0 THEN coalesce(sum(u.cost), 0) END"
"""Nobody knows a sum of which one part is unknown."""

_EVENTS = """
SELECT timestamp, coalesce(source_app, ''), event, details FROM audit_log
WHERE owner = %(owner)s AND timestamp >= %(since)s
AND (%(agent)s::text IS NULL OR source_app = %(agent)s OR starts_with(source_app, %(agent)s || '/'))
AND (%(event)s::text IS NULL OR event = %(event)s OR starts_with(event, %(event)s || '.'))
ORDER BY id DESC LIMIT %(limit)s"""

_USES = f"""
SELECT u.timestamp, s.agent_id, '{MODEL_USED}', json_build_object('input_tokens', u.input_tokens,
  'output_tokens', u.output_tokens, 'cost', CASE WHEN x.usage_id IS NULL THEN u.cost END,
  'model', u.model)::text
FROM {_USAGE} JOIN sessions AS s ON s.owner = u.owner AND s.id = u.session_id
WHERE u.owner = %(owner)s AND u.timestamp >= %(since)s
AND (%(agent)s::text IS NULL OR s.agent_id = %(agent)s OR starts_with(s.agent_id, %(agent)s || '/'))
AND (%(event)s::text IS NULL OR %(event)s IN ('model', '{MODEL_USED}'))
ORDER BY u.id DESC LIMIT %(limit)s"""


@dataclass(eq=False)
class Ledger:
    """Rows of sessions, messages, usage_records and audit_log; writes go inside a transaction."""

    _database: Database

    def touch_session(self, session: Session, now: str) -> None:
        """Record that a session is active, inserting it when it is new."""
        self._database.execute(
            "INSERT INTO sessions (owner, id, session_key, agent_id, model, created_at, last_active_at)"
            " VALUES (%(owner)s, %(id)s, %(key)s, %(agent)s, %(model)s, %(created_at)s, %(now)s)"
            " ON CONFLICT (owner, session_key) DO UPDATE SET last_active_at = excluded.last_active_at",
            id=session.id,
            key=session.key,
            agent=session.agent_id,
            model=UNKNOWN_MODEL,
            created_at=session.created_at,
            now=now,
        )

    def add_usage(self, session_id: str, usage: Usage, now: str) -> None:
        """Insert one use of a model."""
        ((usage_id,),) = self._database.execute(
            f"{NEXT_IDS} INSERT INTO usage_records (owner, id, session_id, model, input_tokens,"
            " output_tokens, total_tokens, cost, timestamp) SELECT %(owner)s, value, %(session)s,"
            " %(model)s, %(inputs)s, %(outputs)s, %(total)s, %(cost)s, %(now)s FROM last RETURNING id",
            table="usage_records",
            count=1,
            session=session_id,
            model=usage.model,
            inputs=usage.input_tokens,
            outputs=usage.output_tokens,
            total=usage.input_tokens + usage.output_tokens,
            cost=usage.cost or 0.0,
            now=now,
        )
        if usage.cost is None:
            unpriced = "INSERT INTO unpriced_usage (owner, usage_id) VALUES (%(owner)s, %(id)s)"
            self._database.execute(unpriced, id=usage_id)

    def usage_by_model(self) -> list[ModelUsage]:
        """Return the sums for each model, the most used first."""
        rows = self._database.query(
            f"SELECT u.model, count(*), sum(u.input_tokens), sum(u.output_tokens), {_COST}"
            f" FROM {_USAGE} WHERE u.owner = %(owner)s GROUP BY u.model ORDER BY count(*) DESC, u.model"
        )
        return [ModelUsage(model, uses, int(i), int(o), cost) for model, uses, i, o, cost in rows]

    def erased_at(self, memory_id: int) -> str | None:
        """Return when a memory was purged, if the log still knows."""
        ((moment,),) = self._database.query(
            "SELECT max(timestamp) FROM audit_log WHERE owner = %(owner)s AND event = 'memory.purged'"
            " AND details::jsonb -> 'memory_ids' @> to_jsonb(%(id)s::bigint)",
            id=memory_id,
        )
        return None if moment is None else str(moment)

    def list_log(self, limit: int, since: str, agent: str | None, event: str | None) -> list[LogEntry]:
        """Return up to `limit` audited events and uses of models since a timestamp, newest first.

        `event` is a whole name, or what stands before its dot.
        """
        values = {"limit": limited(limit), "since": since, "agent": agent, "event": event}
        rows = self._database.query(f"({_EVENTS}) UNION ALL ({_USES})", **values)
        rows.sort(key=lambda row: str(row[0]), reverse=True)
        entries = []
        for at, who, what, text in rows[: limited(limit)]:
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
            "DELETE FROM audit_log WHERE owner = %(owner)s"
            " AND id <= (SELECT max(id) FROM audit_log WHERE owner = %(owner)s) - %(kept)s",
            kept=kept,
        )
        self._add_up_usage(kept)
        self._database.execute(
            "DELETE FROM sessions AS s WHERE s.owner = %(owner)s AND s.id IN (SELECT id FROM sessions"
            " WHERE owner = %(owner)s ORDER BY place DESC OFFSET %(kept)s)"
            " AND NOT starts_with(s.session_key, %(thread)s)"
            " AND NOT EXISTS"
            " (SELECT 1 FROM messages AS m WHERE m.owner = s.owner AND m.session_id = s.id)"
            " AND NOT EXISTS"
            " (SELECT 1 FROM usage_records AS u WHERE u.owner = s.owner AND u.session_id = s.id)",
            kept=kept,
            thread=THREAD_KEY,
        )

    def _add_up_usage(self, kept: int) -> None:
        ((last, first),) = self._database.query(
            "SELECT max(id) - %(kept)s, min(id) FROM usage_records WHERE owner = %(owner)s", kept=kept
        )
        if first is None or first > last:
            return
        sums = self._database.query(
            "SELECT min(u.session_id), u.model, sum(u.input_tokens)::bigint,"
            " sum(u.output_tokens)::bigint, sum(u.total_tokens)::bigint, sum(u.cost), max(u.timestamp),"
            f" x.usage_id IS NOT NULL FROM {_USAGE} WHERE u.owner = %(owner)s AND u.id <= %(last)s"
            " GROUP BY u.model, x.usage_id IS NOT NULL",
            last=last,
        )
        ids = self._database.next_ids("usage_records", len(sums))
        rows = [(usage_id, *one) for usage_id, one in zip(ids, sums, strict=True)]
        self._database.execute(
            "INSERT INTO usage_records (owner, id, session_id, model, input_tokens, output_tokens,"
            " total_tokens, cost, timestamp) SELECT %(owner)s, * FROM unnest(%(id)s::bigint[],"
            " %(session)s::text[], %(model)s::text[], %(inputs)s::bigint[], %(outputs)s::bigint[],"
            " %(total)s::bigint[], %(cost)s::double precision[], %(at)s::text[])",
            **columns_of(
                [row[:-1] for row in rows],
                *("id", "session", "model", "inputs", "outputs", "total", "cost", "at"),
            ),
        )
        self._database.execute(
            "INSERT INTO unpriced_usage (owner, usage_id) SELECT %(owner)s, unnest(%(ids)s::bigint[])",
            ids=[row[0] for row in rows if row[-1]],
        )
        for table, key in (("unpriced_usage", "usage_id"), ("usage_records", "id")):
            self._database.execute(
                f"DELETE FROM {table} WHERE owner = %(owner)s AND {key} <= %(last)s", last=last
            )

    def add_audit(
        self, event: str, source_app: str, details: Sequence[Mapping[str, Any]], now: str
    ) -> None:
        """Insert changes of one kind; `details` hold ids and sizes, never what the user wrote."""
        self._database.execute(
            f"{NEXT_IDS} INSERT INTO audit_log (owner, id, timestamp, event, source_app, details)"
            " SELECT %(owner)s, value - %(count)s + place, %(now)s, %(event)s, %(app)s, d.details"
            " FROM last, unnest(%(details)s::text[]) WITH ORDINALITY AS d (details, place)",
            table="audit_log",
            count=len(details),
            details=[json.dumps(detail) for detail in details],
            now=now,
            event=event,
            app=source_app,
        )


_COLUMNS = "m.id, m.session_id, m.role, m.content, m.created_at, m.token_count"
_OF_THREAD = (
    "messages AS m WHERE m.owner = %(owner)s AND m.session_id ="
    " (SELECT id FROM sessions WHERE owner = %(owner)s AND session_key = %(key)s)"
)
_PASSING = {
    "thread_id": f"s.session_key = '{THREAD_KEY}' || %(thread_id)s",
    "since": "m.created_at >= %(since)s",
    "until": "m.created_at <= %(until)s",
}
_PAGE = 1_000


class MessageTable:
    """Rows of messages that belong to threads, with their words."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._words = FullText(database, "messages_fts")

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
        ids = self._database.next_ids("messages", len(messages))
        rows = [
            (message_id, m.role, m.content, m.created_at or now, count)
            for message_id, m, count in zip(ids, messages, tokens, strict=True)
        ]
        self._database.execute(
            "INSERT INTO messages (owner, id, session_id, role, content, created_at, token_count)"
            " SELECT %(owner)s, n.id, s.id, n.role, n.content, n.at, n.tokens FROM sessions AS s,"
            " unnest(%(ids)s::bigint[], %(roles)s::text[], %(texts)s::text[], %(at)s::text[],"
            " %(tokens)s::integer[]) AS n (id, role, content, at, tokens)"
            " WHERE s.owner = %(owner)s AND s.session_key = %(key)s",
            **columns_of(rows, "ids", "roles", "texts", "at", "tokens"),
            key=key,
        )
        self.index([(message_id, m.content) for message_id, m in zip(ids, messages, strict=True)])
        return ids

    def delete_messages(self, message_ids: Iterable[int]) -> None:
        """Delete messages with their words; inside a transaction."""
        ids = list(message_ids)
        self._words.delete(ids)
        self._database.execute(
            "DELETE FROM messages WHERE owner = %(owner)s AND id = ANY(%(ids)s)", ids=ids
        )

    def list_of_thread(
        self, thread_id: str, limit: int = -1, *, before: int | None = None, first: int | None = None
    ) -> list[Message]:
        """Return a thread's last messages, below `before`, or its next from `first` on, in order."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM {_OF_THREAD} AND m.id BETWEEN %(first)s AND %(last)s"
            f" ORDER BY m.id {'DESC' if first is None else 'ASC'} LIMIT %(limit)s",
            key=f"{THREAD_KEY}{thread_id}",
            first=first or 0,
            last=NO_LIMIT if before is None else before - 1,
            limit=limited(limit),
        )
        messages = [Message(*row) for row in rows]
        return messages[::-1] if first is None else messages

    def find_same(self, thread_id: str, message: NewMessage) -> list[int]:
        """Return the ids of a thread's messages of this role, content and date."""
        rows = self._database.query(
            f"SELECT m.id FROM {_OF_THREAD} AND m.role = %(role)s AND m.created_at = %(created_at)s"
            " AND m.content = %(content)s ORDER BY m.id",
            key=f"{THREAD_KEY}{thread_id}",
            role=message.role,
            created_at=message.created_at,
            content=message.content,
        )
        return [row[0] for row in rows]

    def matching(self, terms: Sequence[str], allowed: MemoryFilter, limit: int) -> list[MessageMatch]:
        """Return up to `limit` messages that have any of the words `terms`, best first by BM25.

        Without a thread, those of all threads may pass.
        """
        where, values = conditions(allowed, _PASSING)
        join = (
            " JOIN messages AS m ON m.owner = f.owner AND m.id = f.id"
            " JOIN sessions AS s ON s.owner = m.owner AND s.id = m.session_id"
        )
        filtered = (join, f" WHERE TRUE{where}", values) if where else ("", "", {})
        found: dict[int, float] = dict(
            self._words.matching(terms, limit, filtered=filtered, order="DESC")
        )
        rows = self._database.query(
            f"SELECT {_COLUMNS}, substr(s.session_key, {len(THREAD_KEY) + 1}) FROM messages AS m"
            " JOIN sessions AS s ON s.owner = m.owner AND s.id = m.session_id"
            " WHERE m.owner = %(owner)s AND m.id = ANY(%(ids)s)",
            ids=list(found),
        )
        messages = {row[0]: row for row in rows}
        return [
            MessageMatch(Message(*messages[i][:-1]), messages[i][-1], score)
            for i, score in found.items()
            if i in messages
        ]

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the messages of threads; inside a transaction."""
        self._words.clear()
        last = 0
        while page := self._database.query(
            "SELECT m.id, m.content FROM messages AS m JOIN sessions AS s"
            " ON s.owner = m.owner AND s.id = m.session_id WHERE m.owner = %(owner)s"
            " AND starts_with(s.session_key, %(thread)s) AND m.id > %(last)s"
            " ORDER BY m.id LIMIT %(limit)s",
            thread=THREAD_KEY,
            last=last,
            limit=_PAGE,
        ):
            self.index(page)
            last = page[-1][0]

    def index(self, messages: Iterable[Sequence[Any]]) -> None:
        """Add rows of id and content to the full text; inside a transaction."""
        self._words.add((message_id, content, "", "") for message_id, content in messages)
