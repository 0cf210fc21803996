"""Messages of threads, with their words in a full-text index."""

import json
import secrets
from collections.abc import Iterable, Sequence

from soulkeep.models import MemoryFilter, Message, MessageMatch, NewMessage, Session
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.full_text import fts_term, fts_text
from soulkeep.repository.sqlite.ledger import THREAD_KEY, Ledger

_COLUMNS = "m.id, m.session_id, m.role, m.content, m.created_at, m.token_count"
_OF_THREAD = "messages AS m WHERE m.session_id = (SELECT id FROM sessions WHERE session_key = :key)"
_PAGE = 1_000


class MessageTable:
    """Rows of messages that belong to threads, with their entries in the full-text index."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    def add_messages(
        self,
        thread_id: str,
        agent_id: str,
        messages: Sequence[NewMessage],
        tokens: Sequence[int],
        now: str,
    ) -> list[int]:
        """Insert messages of a thread with their counts of tokens, in a transaction. Return the ids."""
        conversation_id = self._open_conversation(thread_id, agent_id, now)
        ids = [
            self._ledger.add_message(conversation_id, m.role, m.content, m.created_at or now, count)
            for m, count in zip(messages, tokens, strict=True)
        ]
        self._index(zip(ids, (message.content for message in messages), strict=True))
        return ids

    def _open_conversation(self, thread_id: str, agent_id: str, now: str) -> str:
        """Return the id of a thread's conversation, made on first use, which is active now."""
        key = f"{THREAD_KEY}{thread_id}"
        self._ledger.touch_session(Session(secrets.token_hex(8), key, agent_id, now), now)
        rows = self._database.query("SELECT id FROM sessions WHERE session_key = ?", (key,))
        return str(rows[0][0])

    def delete_messages(self, message_ids: Iterable[int]) -> None:
        """Delete messages with their index entries; inside a transaction."""
        keys = [(message_id,) for message_id in message_ids]
        self._database.execute_many("DELETE FROM messages_fts WHERE rowid = ?", keys)
        self._database.execute_many("DELETE FROM messages WHERE id = ?", keys)

    def list_of_thread(self, thread_id: str, limit: int, before: int | None = None) -> list[Message]:
        """Return the last `limit` messages of a thread, with ids below `before`, oldest first."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM {_OF_THREAD} AND m.id < :before ORDER BY m.id DESC LIMIT :limit",
            {**_key(thread_id), "before": 2**62 if before is None else before, "limit": limit},
        )
        return [Message(*row) for row in reversed(rows)]

    def list_from(self, thread_id: str, first: int, limit: int) -> list[Message]:
        """Return up to `limit` messages of a thread from the id `first` on, oldest first."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM {_OF_THREAD} AND m.id >= :first ORDER BY m.id LIMIT :limit",
            {**_key(thread_id), "first": first, "limit": limit},
        )
        return [Message(*row) for row in rows]

    def find_same(self, thread_id: str, message: NewMessage) -> list[int]:
        """Return the ids of a thread's messages of this role, content and date."""
        rows = self._database.query(
            f"SELECT m.id FROM {_OF_THREAD} AND m.role = :role AND m.created_at = :created_at"
            " AND m.content = :content ORDER BY m.id",
            {
                **_key(thread_id),
                "role": message.role,
                "created_at": message.created_at,
                "content": message.content,
            },
        )
        return [row[0] for row in rows]

    def thread_of(self, conversation_id: str) -> str:
        """Return the id of the thread, there or not, that a conversation belongs to."""
        rows = self._database.query("SELECT session_key FROM sessions WHERE id = ?", (conversation_id,))
        return str(rows[0][0]).removeprefix(THREAD_KEY) if rows else ""

    def ids_of_thread(self, thread_id: str) -> list[int]:
        """Return the ids of all messages of a thread, oldest first."""
        rows = self._database.query(f"SELECT m.id FROM {_OF_THREAD} ORDER BY m.id", _key(thread_id))
        return [row[0] for row in rows]

    def matching(self, terms: Sequence[str], allowed: MemoryFilter, limit: int) -> list[MessageMatch]:
        """Return up to `limit` messages that have any of the words `terms`, best first by BM25.

        Without a thread, those of all threads may pass.
        """
        if not terms:
            return []
        where, values = _conditions(allowed)
        rows = self._database.query(
            f"SELECT {_COLUMNS}, substr(s.session_key, {len(THREAD_KEY) + 1}), -f.rank"
            " FROM messages_fts AS f CROSS JOIN messages AS m ON m.id = f.rowid"
            " CROSS JOIN sessions AS s ON s.id = m.session_id"
            f" WHERE messages_fts MATCH :terms{where} ORDER BY f.rank, m.id DESC LIMIT :limit",
            {**values, "terms": " OR ".join(map(fts_term, terms)), "limit": limit},
        )
        return [MessageMatch(Message(*row[:-2]), row[-2], row[-1]) for row in rows]

    def threads_saying(self, texts: Sequence[str]) -> list[str]:
        """Return the ids of the threads in whose messages one of the texts stands."""
        rows = self._database.query(
            f"SELECT DISTINCT substr(s.session_key, {len(THREAD_KEY) + 1})"
            " FROM json_each(?) AS said CROSS JOIN messages AS m ON instr(m.content, said.value)"
            " JOIN sessions AS s ON s.id = m.session_id ORDER BY 1",
            (json.dumps(list(texts)),),
        )
        return [row[0] for row in rows]

    def add_to_index(self, message_id: int, content: str) -> None:
        """Index a message that came back; inside a transaction."""
        self._index([(message_id, content)])

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the messages of threads; inside a transaction."""
        self._database.execute("DELETE FROM messages_fts")
        last = 0
        while page := self._database.query(
            "SELECT m.id, m.content FROM messages AS m JOIN sessions AS s ON s.id = m.session_id"
            f" WHERE s.session_key GLOB '{THREAD_KEY}*' AND m.id > ? ORDER BY m.id LIMIT ?",
            (last, _PAGE),
        ):
            self._index((row[0], row[1]) for row in page)
            last = page[-1][0]

    def _index(self, messages: Iterable[tuple[int, str]]) -> None:
        self._database.execute_many(
            "INSERT INTO messages_fts (rowid, content) VALUES (?, ?)",
            ((message_id, fts_text(content)) for message_id, content in messages),
        )


def _key(thread_id: str) -> dict[str, str]:
    return {"key": f"{THREAD_KEY}{thread_id}"}


def _conditions(allowed: MemoryFilter) -> tuple[str, dict[str, str]]:
    key = None if allowed.thread_id is None else f"{THREAD_KEY}{allowed.thread_id}"
    conditions = {
        "key": ("s.session_key = :key", key),
        "since": ("m.created_at >= :since", allowed.since),
        "until": ("m.created_at <= :until", allowed.until),
    }
    chosen = {name: (sql, value) for name, (sql, value) in conditions.items() if value is not None}
    where = "".join(f" AND {sql}" for sql, _ in chosen.values())
    return where, {name: value for name, (_, value) in chosen.items()}
