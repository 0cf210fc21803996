"""Proof that a home is whole, counts and sizes of it, and taking out what was deleted."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg

from soulkeep.days import Days
from soulkeep.models import Fault
from soulkeep.repository import ROWS
from soulkeep.repository.postgres.connections import translated
from soulkeep.repository.postgres.database import Database
from soulkeep.repository.postgres.documents import REVISION
from soulkeep.repository.postgres.schema import BACKUP_TABLES, FORMER, TABLES
from soulkeep.repository.values import GIVE_IDS, THREAD_KEY
from soulkeep.wording import agreeing, counted

SOURCES = {name: name for name in ROWS} | {
    "vectors": "vec_memories",
    "full-text entries": "memories_fts",
}

_SURROGATE = re.compile("[\ud800-\udfff]")

_REINDEX = "run `soulkeep reindex`, which builds the search indexes anew from the memories"
_REPAIR = "run `soulkeep doctor --repair`"

_MEMORIES_SAYING = (
    "SELECT 'memories', m.id::text FROM memories AS m WHERE m.owner = %(owner)s"
    " AND m.document IS NULL AND EXISTS"
    " (SELECT 1 FROM unnest(%(said)s::text[]) AS said WHERE strpos(m.content, said) > 0) ORDER BY m.id"
)
_THREADS_SAYING = (
    f"SELECT DISTINCT 'threads', substr(s.session_key, {len(THREAD_KEY) + 1})"
    " FROM messages AS m JOIN sessions AS s ON s.owner = m.owner AND s.id = m.session_id"
    " WHERE m.owner = %(owner)s AND EXISTS"
    " (SELECT 1 FROM unnest(%(said)s::text[]) AS said WHERE strpos(m.content, said) > 0) ORDER BY 2"
)
_ONCE_SAYING = (
    "SELECT DISTINCT r.kind, r.key FROM changed_rows AS r WHERE r.owner = %(owner)s AND EXISTS"
    " (SELECT 1 FROM unnest(%(said)s::text[]) AS said"
    " WHERE strpos(coalesce(r.before ->> 'content', r.before ->> 'system_prompt'), said) > 0)"
    " ORDER BY r.kind, r.key"
)

_FULL_TEXTS = {
    "memories_fts": ("full text", "memory", "SELECT id FROM memories WHERE owner = %(owner)s"),
    "messages_fts": (
        "full text of messages",
        "message",
        "SELECT m.id FROM messages AS m JOIN sessions AS s ON s.owner = m.owner"
        " AND s.id = m.session_id WHERE m.owner = %(owner)s"
        f" AND starts_with(s.session_key, '{THREAD_KEY}')",
    ),
}
"""The fault of a full text, what it has, and SQL for the ids that should be in it."""


@dataclass(eq=False)
class Upkeep:
    """What can be asked of, and done to, a whole home."""

    _database: Database
    _days: Days

    def count_rows(self) -> dict[str, int]:
        """Count the rows of each canonical table, of the vectors and of the full-text index."""
        counts = ", ".join(
            f"(SELECT count(*) FROM {source} WHERE owner = %(owner)s)" for source in SOURCES.values()
        )
        (row,) = self._database.query(f"SELECT {counts}")
        return dict(zip(SOURCES, row, strict=True))

    def count_by_day(self, since: str, event: str | None = None) -> dict[str, int]:
        """Count memories, no entries, that were kept since a timestamp, or what happened, by day."""
        if event is None:
            at, among = "created_at", "memories WHERE document IS NULL"
        else:
            at, among = "timestamp", "audit_log WHERE event = %(event)s"
        rows = self._database.query(
            f"SELECT left({at}, 16) || 'Z', count(*) FROM {among} AND owner = %(owner)s"
            f" AND {at} >= %(since)s GROUP BY 1",
            since=since,
            event=event,
        )
        by_day: Counter[str] = Counter()
        for moment, count in rows:
            by_day[self._days.date_text(moment)] += count
        return dict(by_day)

    def news(self, since: tuple[int, int] | None) -> tuple[tuple[int, int], set[str], bool]:
        """Return where events and changes end, the names of new events, and whether threads changed."""
        # The end first: what is added meanwhile is better told twice than never.
        last_change, last_event = self._database.numbers("changes", "audit_log")
        event, change = since or (last_event, last_change)
        names = self._database.query(
            "SELECT DISTINCT event FROM audit_log WHERE owner = %(owner)s AND id > %(event)s",
            event=event,
        )
        threads = self._database.query(
            "SELECT 1 FROM changed_rows AS r"
            " LEFT JOIN threads AS t ON t.owner = r.owner AND t.id = r.key"
            " WHERE r.owner = %(owner)s AND r.change_id > %(change)s AND r.kind = 'threads'"
            " AND (r.before IS NULL OR t.id IS NULL OR t.title <> r.before ->> 'title'"
            " OR t.archived::text IS DISTINCT FROM r.before ->> 'archived') LIMIT 1",
            change=change,
        )
        new = {row[0] for row in names} if since else set()
        return (last_event, last_change), new, bool(threads)

    def find_saying(self, texts: Sequence[str]) -> list[tuple[bool, str, str]]:
        """Return whether only its past does, kind and key of what holds one of the texts."""
        # No text of the store has half a pair or a NUL.
        said = [text for text in texts if "\0" not in text and not _SURROGATE.search(text)]
        statements = ((False, _MEMORIES_SAYING), (False, _THREADS_SAYING), (True, _ONCE_SAYING))
        return [
            (is_past, kind, key)
            for is_past, statement in statements
            for kind, key in self._database.query(statement, said=said)
        ]

    def check(self, *, vectors_expected: bool) -> list[Fault]:
        """Return everything that is wrong with the store; an empty list means it is whole.

        Exactly one vector (none, where the store's embedder makes none) and one full-text entry belong
        to each memory, and one full-text entry to each message of a thread.
        """
        with self._database.snapshot():
            faults = self._vector_faults(expected=vectors_expected)
            for table, (fault, noun, ids) in _FULL_TEXTS.items():
                missing, orphaned, texts, length, wrong = self._entries(table, ids)
                if missing or orphaned:
                    lacking = f"{counted(missing, noun)} {agreeing(missing)} not indexed"
                    entries = f"{counted(orphaned, 'entry')} {agreeing(orphaned, 'has', 'have')}"
                    faults.append(Fault(fault, f"{lacking}, {entries} no {noun}", _REINDEX))
                if (texts, length) != tuple(self._database.numbers(f"{table} texts", f"{table} length")):
                    faults.append(Fault(fault, "the sizes of its entries do not add up", _REPAIR))
                if wrong:
                    detail = f"{counted(wrong, 'word')} {agreeing(wrong)} counted wrongly"
                    faults.append(Fault(fault, detail, _REPAIR))
        return faults

    def _entries(self, table: str, ids: str) -> tuple[int, ...]:
        words = (
            f"SELECT word, count(*) AS texts FROM {table}, unnest(tsvector_to_array(words)) AS word"
            " WHERE owner = %(owner)s GROUP BY word"
        )
        (row,) = self._database.query(
            f"SELECT (SELECT count(*) FROM ({ids}) AS i WHERE id NOT IN"
            f" (SELECT id FROM {table} WHERE owner = %(owner)s)),"
            f" (SELECT count(*) FROM {table} WHERE owner = %(owner)s AND id NOT IN ({ids})),"
            f" (SELECT count(*) FROM {table} WHERE owner = %(owner)s),"
            f" (SELECT coalesce(sum(length), 0) FROM {table} WHERE owner = %(owner)s),"
            f" (SELECT count(*) FROM ({words}) AS c FULL JOIN (SELECT word, texts FROM word_counts"
            " WHERE owner = %(owner)s AND kind = %(table)s) AS k ON k.word = c.word"
            " WHERE k.texts IS DISTINCT FROM c.texts)",
            table=table,
        )
        return tuple(map(int, row))

    def _vector_faults(self, *, expected: bool) -> list[Fault]:
        memories = "(SELECT id FROM memories WHERE owner = %(owner)s)"
        of = "FROM {} WHERE owner = %(owner)s".format
        ((missing, orphaned, surplus, waiting, to_come),) = self._database.query(
            f"SELECT (SELECT count(*) {of('memories')}"
            f" AND id NOT IN (SELECT memory_id {of('vec_memories')})"
            f" AND id NOT IN (SELECT memory_id {of('pending_vectors')})),"
            f" (SELECT count(*) {of('vec_memories')} AND memory_id NOT IN {memories}),"
            f" (SELECT count(*) {of('vec_memories')}),"
            f" (SELECT count(*) {of('pending_vectors')} AND (memory_id NOT IN {memories}"
            f" OR memory_id IN (SELECT memory_id {of('vec_memories')}))),"
            f" (SELECT count(*) {of('next_vectors')} AND memory_id NOT IN {memories})"
        )
        noted, have = self._database.numbers("vectors")[0], partial(agreeing, one="has", many="have")
        wait = agreeing(waiting, "waits", "wait")
        found = (
            (missing and expected, f"{counted(missing, 'memory')} {have(missing)} no vector", _REINDEX),
            (
                surplus and not expected,
                f"{counted(surplus, 'vector')} {agreeing(surplus)} of no known embedder",
                _REINDEX,
            ),
            (
                orphaned and expected,
                f"{counted(orphaned, 'vector')} {have(orphaned)} no memory",
                _REINDEX,
            ),
            (waiting, f"{counted(waiting, 'memory')} {wait} in vain for a vector", _REINDEX),
            (noted != surplus, f"{surplus} are there and {noted} are counted", _REPAIR),
            (to_come, f"{counted(to_come, 'vector')} to come {have(to_come)} no memory", _REINDEX),
        )
        return [Fault("vectors", detail, remedy) for is_so, detail, remedy in found if is_so]

    def empty(self) -> None:
        """Delete all rows of the home, in a transaction, but for its documents and who it is.

        Which ids it has given is kept too.
        """
        self._database.execute("SELECT set_config('soulkeep.recording', '', true)")
        for table in reversed(TABLES):
            if table not in ("owners", "numbers", "documents"):
                self._database.execute(f"DELETE FROM {table} WHERE owner = %(owner)s")
        self._database.execute(
            "DELETE FROM numbers WHERE owner = %(owner)s AND name <> ALL(%(kept)s)",
            kept=[*GIVE_IDS, REVISION],
        )

    def recreate_indexes(self) -> None:
        """Make the vectors of the home empty, those to come too; in a transaction."""
        for table in ("vec_memories", "pending_vectors", "next_vectors"):
            self._database.execute(f"DELETE FROM {table} WHERE owner = %(owner)s")
        self._database.execute("DELETE FROM numbers WHERE owner = %(owner)s AND name = 'vectors'")

    def table_sizes(self) -> dict[str, int]:
        """Return how many bytes the rows of the home take in each table, largest first; reads all."""
        sizes = ", ".join(
            f"(SELECT coalesce(sum(pg_column_size(t.*)), 0) FROM {table} AS t WHERE owner = %(owner)s)"
            for table in TABLES
        )
        (row,) = self._database.query(f"SELECT {sizes}")
        found = {table: int(size) for table, size in zip(TABLES, row, strict=True) if size}
        return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))

    def size(self) -> int:
        """Return how many bytes the rows of the home take, without their indexes."""
        return sum(self.table_sizes().values())

    def wasted(self) -> int:
        """Return 0: what was deleted is given back by the database's own autovacuum."""
        return 0

    def tidy(self, *, waiting: bool = True) -> Iterator[int]:
        """Do nothing, as `wasted` says."""
        return iter(())

    def erase(self) -> bool:
        """Take what was deleted out of the tables; False while what others read still needs it.

        What was copied of the home before a migration goes altogether.

        What the operator's archives and earlier backups of the database hold stays there.

        Raises:
            StoreError: The database cannot do it.
        """
        server = self._database.server
        with translated(server.place), server.connect() as connection:
            named = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = %s"
            copied = connection.execute(named, [FORMER]).fetchall()
            for place in copied:
                if place[1] != "soulkeep_schema":
                    gone = psycopg.sql.SQL("DELETE FROM {} WHERE owner = %s")
                    table = psycopg.sql.Identifier(*place)
                    connection.execute(gone.format(table), [self._database.owner])
        return server.vacuum([*((table,) for table in (*TABLES, *BACKUP_TABLES)), *copied])

    def versions(self) -> dict[str, str]:
        """Return the versions of PostgreSQL and pgvector, and the schema's."""
        ((postgres, vector, schema),) = self._database.query(
            "SELECT current_setting('server_version'),"
            " (SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
            " (SELECT version FROM soulkeep_schema)"
        )
        return {"PostgreSQL": postgres, "pgvector": vector, "schema": str(schema)}

    def memory_used(self) -> int:
        """Return 0: the database keeps what searches read."""
        return 0

    def release_memory(self) -> None:
        """Do nothing, as `memory_used` says."""
