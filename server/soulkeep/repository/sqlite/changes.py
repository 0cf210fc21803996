"""What was changed, by whom, and each changed row as it was before: the undo log.

SQLite notes the rows itself, by triggers of the connection that writes: a table's first look at a row
during a recording goes into `noted`, and outside of one the write is refused.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from soulkeep.errors import ChangeNotFoundError, UndoConflictError
from soulkeep.models import (
    Change,
    ChangedRow,
    Memory,
    Message,
    RowKind,
    RowValue,
    Session,
    Vector,
)
from soulkeep.repository.sqlite.connections import UNRECORDED
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.ledger import MessageTable
from soulkeep.repository.sqlite.memories import MemoryTable
from soulkeep.repository.sqlite.prompts import ConsentTable
from soulkeep.repository.values import (
    ACTIVITY,
    ADDED,
    THREAD_KEY,
    Image,
    digest_of_row,
    edit_text,
    is_as_left,
    value_of,
)

_COLUMNS = (
    "id, made_at, agent_id, action, undone_by,"
    " (SELECT count(*) FROM changed_rows AS r WHERE r.change_id = changes.id)"
)

_PAGE = 1_000
"""So many rows of a change are in memory at a time."""

_RECORDED: dict[RowKind, tuple[str, str, str]] = {
    "memories": ("", "WHEN new.document IS NULL", "WHEN old.document IS NULL"),
    "threads": (" OF id, title, system_prompt, archived, created_at", "", ""),
    "global_prompts": ("", "", ""),
    "messages": ("", "", ""),
}
"""The tables that are watched: which columns count, and which rows. Entries of documents come and go
with their lines, and that a thread was used is no change of it."""

_NOTES = (
    "CREATE TEMP TABLE recording (is_on)",
    "CREATE TEMP TABLE noted (kind TEXT, key TEXT, before TEXT, UNIQUE (kind, key))",
)


@dataclass(eq=False)
class Recording:
    """A change while it is made: the rows that were noted since it began."""

    _database: Database
    _table: "ChangeTable"

    def rows(self) -> Iterator[ChangedRow]:
        """Yield what has changed until now, in the order of the first writes."""
        last = 0
        while page := self._database.query(
            "SELECT rowid, kind, key, before FROM noted WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (last, _PAGE),
        ):
            first, last = page[0][0], page[-1][0]
            added = {
                (kind, row[0])
                for kind in _RECORDED
                for row in self._database.query(
                    "SELECT key FROM noted WHERE kind = ? AND before IS NULL AND rowid BETWEEN ? AND ?"
                    f" AND EXISTS (SELECT 1 FROM {kind} AS r WHERE r.id = {_typed('noted.key', kind)})",
                    (kind, first, last),
                )
            }
            for _, kind, key, noted in page:
                before: Image | None = None if noted is None else json.loads(noted)
                if before is None:
                    after = ADDED if (kind, key) in added else None
                else:
                    after = digest_of_row(self._table.image(kind, key))
                if after != digest_of_row(before):
                    yield ChangedRow(kind, key, self._table.value(kind, before), after)

    def save(
        self,
        action: str,
        session: Session,
        now: str,
        rows: Iterable[ChangedRow],
        undone: Sequence[int],
        into: int = 0,
    ) -> int:
        """Put the change into the log with these of its rows, or go on with a former one."""
        rows, change_id = iter(rows), into
        if not into:
            made = self._database.execute(
                "INSERT INTO changes (made_at, session_id, agent_id, action) VALUES (?, ?, ?, ?)"
                " RETURNING id",
                (now, session.id, session.agent_id, action),
            )
            change_id = int(made[0][0])
        while page := list(islice(rows, _PAGE)):
            # Of an edit the row says what it was, of all else what was noted.
            values = [
                (
                    *(change_id, row.kind, row.key, edit_text(row.before)),
                    *(row.kind, row.key, row.after, row.replaced_by),
                )
                for row in page
            ]
            self._database.execute_many(
                "INSERT INTO changed_rows (change_id, kind, key, before, after, replaced_by)"
                " VALUES (?, ?, ?,"
                " ifnull(?, (SELECT before FROM noted WHERE kind = ? AND key = ?)), ?, ?)"
                " ON CONFLICT DO UPDATE SET after = excluded.after,"
                " before = iif(kind = 'documents', excluded.before, before)",
                values,
            )
        mark = "UPDATE changes SET undone_by = ? WHERE id = ?"
        self._database.execute_many(mark, ((change_id, i) for i in undone))
        # What an undo had undone is in force again once the undo itself is taken back.
        self._database.execute(
            "UPDATE changes SET undone_by = NULL"
            " WHERE undone_by IN (SELECT value FROM json_each(:these))"
            " AND id NOT IN (SELECT value FROM json_each(:these))",
            {"these": json.dumps(list(undone))},
        )
        self._database.execute("DELETE FROM noted")
        return change_id


@dataclass(eq=False)
class ChangeTable:
    """Rows of changes and changed_rows, and the images of the rows they speak of."""

    _database: Database
    _memories: MemoryTable
    _messages: MessageTable
    _consents: ConsentTable
    _columns: dict[str, list[str]] = field(default_factory=dict, init=False)

    def watch(self) -> None:
        """Let the connection that writes note or refuse what is written; inside a transaction."""
        if self._database.query("SELECT 1 FROM temp.sqlite_schema WHERE name = 'noted'"):
            return
        for statement in _NOTES:
            self._database.execute(statement)
        for kind, (counted, added, there) in _RECORDED.items():
            columns = self._columns_of(kind)
            image = ", ".join(f"'{name}', old.{name}" for name in columns)
            for name, when, which, row, before in (
                ("added", "AFTER INSERT", added, "new", "NULL"),
                ("changed", f"BEFORE UPDATE{counted}", there, "old", f"json_object({image})"),
                ("deleted", "BEFORE DELETE", there, "old", f"json_object({image})"),
            ):
                if columns:  # a damaged store may lack a table
                    self._database.execute(
                        f"CREATE TEMP TRIGGER {kind}_{name} {when} ON main.{kind} {which} BEGIN"
                        f" SELECT RAISE(ABORT, '{kind} {UNRECORDED}')"
                        " WHERE NOT EXISTS (SELECT 1 FROM recording);"
                        f" INSERT INTO noted VALUES ('{kind}', {row}.id, {before})"
                        " ON CONFLICT DO NOTHING; END"
                    )

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Note what is written during the block; inside a transaction."""
        self._database.execute("INSERT INTO recording VALUES (1)")
        yield Recording(self._database, self)
        self._database.execute("DELETE FROM recording")
        self._database.execute("DELETE FROM noted")

    def image(self, kind: RowKind, key: str) -> Image | None:
        """Return a row as it is, by its columns; None where there is none."""
        columns = self._columns_of(kind)
        rows = self._database.query(
            f"SELECT {', '.join(columns)} FROM {kind} WHERE id = {_typed('?', kind)}", (key,)
        )
        return dict(zip(columns, rows[0], strict=True)) if rows else None

    def value(self, kind: RowKind, image: Image | None) -> RowValue | None:
        """Return what an image shows, perhaps one from before a migration."""
        return value_of(kind, image, self._consents.origin)

    def put_back(self, row: ChangedRow, vector: Vector | None, now: str) -> None:
        """Make a row what it was before a change, with all that is derived from it; in a recording.

        Raises:
            UndoConflictError: It is not as the change left it, or its thread or the rows of it hold it.
        """
        noted = self._database.query(
            "SELECT before FROM changed_rows WHERE change_id = ? AND kind = ? AND key = ?",
            (row.change_id, row.kind, row.key),
        )
        before: Image | None = json.loads(noted[0][0]) if noted and noted[0][0] is not None else None
        held = self._held_by(row, before)
        if held or not is_as_left(row.after, before, self.image(row.kind, row.key)):
            raise UndoConflictError(row.change_id, row.kind, row.key, held_by=held)
        if before is not None and before.get("expires_at") is not None and before["expires_at"] <= now:
            before = before | {"expires_at": None}
        if row.kind == "memories":
            self._memories.delete_memories([int(row.key)])
        elif row.kind == "messages":
            self._messages.delete_messages([int(row.key)])
        self._put(row.kind, row.key, before)
        restored = self.value(row.kind, before)
        if isinstance(restored, Memory):
            self._memories.add_to_indexes([restored], [vector])
        elif isinstance(restored, Message):
            self._messages.index([(restored.id, restored.content)])

    def _held_by(self, row: ChangedRow, before: Image | None) -> list[tuple[RowKind, str]]:
        """Return what belongs to a thread that would go, or the gone thread that a row belongs to."""
        if row.kind == "threads" and before is None:
            return self._database.query(
                "SELECT 'memories', CAST(id AS TEXT) FROM memories WHERE thread_id = :id UNION ALL"
                " SELECT 'messages', CAST(m.id AS TEXT) FROM sessions AS s JOIN messages AS m"
                " ON m.session_id = s.id WHERE s.session_key = :key",
                {"id": row.key, "key": f"{THREAD_KEY}{row.key}"},
            )
        thread_id = None
        if row.kind == "memories" and before:
            thread_id = before["thread_id"]
        elif row.kind == "messages" and before:
            of = "SELECT session_key FROM sessions WHERE id = ?"
            rows = self._database.query(of, (before["session_id"],))
            thread_id = str(rows[0][0]).removeprefix(THREAD_KEY) if rows else ""
        is_there = thread_id is None or self.image("threads", thread_id) is not None
        return [] if is_there else [("threads", str(thread_id))]

    def _put(self, kind: RowKind, key: str, image: Image | None) -> None:
        """Make a row what an image says, or delete it; a row that is there keeps its activity."""
        if image is None:
            self._database.execute(f"DELETE FROM {kind} WHERE id = {_typed('?', kind)}", (key,))
            return
        # What an image from before a migration does not have gets its default.
        known = {name: value for name, value in image.items() if name in self._columns_of(kind)}
        names = list(known)
        self._database.execute(
            f"INSERT INTO {kind} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            " ON CONFLICT (id) DO UPDATE SET"
            f" {', '.join(f'{name} = excluded.{name}' for name in names if name != ACTIVITY)}",
            list(known.values()),
        )

    def get_change(self, change_id: int) -> Change:
        """Return one change.

        Raises:
            ChangeNotFoundError: There is none with this id, or it is no longer kept.
        """
        rows = self._database.query(f"SELECT {_COLUMNS} FROM changes WHERE id = ?", (change_id,))
        if not rows:
            raise ChangeNotFoundError(change_id)
        return Change(*rows[0])

    def list_changes(self, limit: int, before: int | None = None, since: str = "") -> list[Change]:
        """Return up to `limit` changes with ids below `before`, made since a moment, latest first."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM changes WHERE id < ? AND made_at >= ? ORDER BY id DESC LIMIT ?",
            (2**62 if before is None else before, since, limit),
        )
        return [Change(*row) for row in rows]

    def rows_of(self, change_id: int, limit: int = -1) -> list[ChangedRow]:
        """Return what a change did to rows, of those first that tell most of it."""
        weightiest = "instr('threads,global_prompts,memories,documents,messages', kind)"
        order = f"{weightiest}, CAST(key AS INTEGER), key"
        return self._rows("change_id = ?", change_id, order=order, limit=limit)

    def each_row(self, change_id: int, kind: RowKind) -> Iterator[ChangedRow]:
        """Yield what a change did to rows of a kind, some at a time."""
        keys = self._database.query(
            "SELECT key FROM changed_rows WHERE change_id = ? AND kind = ?"
            " ORDER BY CAST(key AS INTEGER), key",
            (change_id, kind),
        )
        wanted = "change_id = ? AND kind = ? AND key IN (SELECT value FROM json_each(?))"
        for at in range(0, len(keys), _PAGE):
            these = json.dumps([key for (key,) in keys[at : at + _PAGE]])
            yield from self._rows(wanted, change_id, kind, these, order="CAST(key AS INTEGER), key")

    def after(self, row: ChangedRow) -> RowValue | None:
        """Return a row as a change left it: as the next change found it, or as it is."""
        later = self._rows(
            "kind = ? AND key = ? AND change_id > ?",
            *(row.kind, row.key, row.change_id),
            order="change_id",
            limit=1,
        )
        return later[0].before if later else self.value(row.kind, self.image(row.kind, row.key))

    def rows_about(self, kind: RowKind, *keys: str) -> list[ChangedRow]:
        """Return what changes did to rows of these keys, or to all of a kind, oldest first."""
        if not keys:
            return self._rows("kind = ?", kind)
        wanted = "kind = ? AND key IN (SELECT value FROM json_each(?))"
        return self._rows(wanted, kind, json.dumps(keys))

    def _rows(
        self, where: str, *values: object, order: str = "change_id, kind, key", limit: int = -1
    ) -> list[ChangedRow]:
        rows = self._database.query(
            "SELECT change_id, kind, key, before, after, replaced_by FROM changed_rows"
            f" WHERE {where} ORDER BY {order} LIMIT ?",
            (*values, limit),
        )
        return [
            ChangedRow(kind, key, self.value(kind, before and json.loads(before)), after, by, change)
            for change, kind, key, before, after, by in rows
        ]

    def latest_ids(self, memory_ids: Iterable[int]) -> dict[int, int]:
        """Return for each id the last that came in its place, one after another; or the id itself."""
        latest = {memory_id: memory_id for memory_id in memory_ids}
        # What the log says last of a memory counts: 0 where that is not that another took its place.
        rows = self._database.query(
            "WITH RECURSIVE chain (asked, id, step) AS (SELECT value, value, 0 FROM json_each(?)"
            " UNION ALL SELECT asked, ifnull((SELECT iif(r.after IS NULL, ifnull(r.replaced_by, 0), 0)"
            " FROM changed_rows AS r WHERE r.kind = 'memories' AND r.key = CAST(chain.id AS TEXT)"
            " ORDER BY r.change_id DESC LIMIT 1),"
            " (SELECT later_id FROM former_ids WHERE memory_id = chain.id)), step + 1"
            " FROM chain WHERE id)"
            " SELECT asked, id FROM chain WHERE id ORDER BY step",
            (json.dumps(sorted(latest)),),
        )
        # What is too large for an id is read as a fraction, and no row has it.
        return latest | {asked: later for asked, later in rows if type(asked) is int}

    def replaced_by(self, memory_ids: Iterable[int]) -> set[int]:
        """Return the ids of the memories that one of these replaced."""
        rows = self._database.query(
            "SELECT DISTINCT key FROM changed_rows"
            " WHERE replaced_by IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(memory_ids)),),
        )
        return {int(row[0]) for row in rows}

    def latest_of(self, keys: Sequence[tuple[str, str]], above: int, but: Sequence[int]) -> list[int]:
        """Return for each row the last change of it in force with an id above one, but for some.

        An undo counts where there is nothing else: to take it back would bring back what it undid.
        """
        rows = self._database.query(
            "SELECT DISTINCT (SELECT coalesce(max(r.change_id) FILTER (WHERE c.action != 'undo'),"
            " max(r.change_id)) FROM changed_rows AS r"
            " JOIN changes AS c ON c.id = r.change_id WHERE c.undone_by IS NULL"
            " AND r.kind = k.value ->> 0 AND r.key = k.value ->> 1 AND r.change_id > :above"
            " AND r.change_id NOT IN (SELECT value FROM json_each(:but))) AS latest"
            " FROM json_each(:keys) AS k WHERE latest IS NOT NULL",
            {"keys": json.dumps(list(keys)), "above": above, "but": json.dumps(list(but))},
        )
        return [row[0] for row in rows]

    def list_trash(self, limit: int, before: int | None = None) -> list[ChangedRow]:
        """Return memories that are gone by changes below `before`, as they last were, latest first."""
        return self._rows(
            "kind = 'memories' AND after IS NULL AND change_id < ?"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS later WHERE later.kind = 'memories'"
            " AND later.key = changed_rows.key AND later.change_id > changed_rows.change_id)"
            " AND before ->> 'document' IS NULL",
            2**62 if before is None else before,
            order="change_id DESC, key",
            limit=limit,
        )

    def imported(self, digests: Collection[str]) -> set[str]:
        """Return those of these digests that were noted with a change which is not undone."""
        rows = self._database.query(
            "SELECT i.digest FROM json_each(?) AS wanted CROSS JOIN imported AS i"
            " ON i.digest = wanted.value LEFT JOIN changes AS c ON c.id = i.change_id"
            " WHERE c.undone_by IS NULL",
            (json.dumps(list(digests)),),
        )
        return {row[0] for row in rows}

    def note_imported(self, digests: Collection[str], change_id: int) -> None:
        """Note records as taken in by a change; inside a transaction."""
        self._database.execute(
            "INSERT INTO imported (digest, change_id) SELECT value, ? FROM json_each(?) WHERE TRUE"
            " ON CONFLICT DO UPDATE SET change_id = excluded.change_id",
            (change_id, json.dumps(list(digests))),
        )

    def delete_rows(self, rows: Sequence[ChangedRow]) -> None:
        """Delete what changes did to rows, and changes that did nothing else; inside a transaction."""
        self._database.execute_many(
            "DELETE FROM changed_rows WHERE change_id = ? AND kind = ? AND key = ?",
            ((row.change_id, row.kind, row.key) for row in rows),
        )
        self._database.execute_many(
            "DELETE FROM changes WHERE id = ?"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS r WHERE r.change_id = changes.id)",
            ((change_id,) for change_id in {row.change_id for row in rows}),
        )

    def delete_before(self, moment: str | None) -> int:
        """Delete changes made before a timestamp, or all; inside a transaction. Return how many.

        To which memories the ids of others lead is kept.
        """
        which = "?1 IS NULL OR made_at < ?1"
        self._database.execute(
            "INSERT OR REPLACE INTO former_ids (memory_id, later_id)"
            " SELECT CAST(r.key AS INTEGER), r.replaced_by FROM changed_rows AS r"
            f" WHERE r.change_id IN (SELECT id FROM changes WHERE {which})"
            " AND r.kind = 'memories' AND r.after IS NULL AND r.replaced_by IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS later WHERE later.kind = 'memories'"
            " AND later.key = r.key AND later.change_id > r.change_id)",
            (moment,),
        )
        self._database.execute(
            "DELETE FROM imported WHERE change_id IN"
            f" (SELECT id FROM changes WHERE undone_by IS NOT NULL AND ({which}))",
            (moment,),
        )
        return len(self._database.execute(f"DELETE FROM changes WHERE {which} RETURNING id", (moment,)))

    def _columns_of(self, kind: RowKind) -> list[str]:
        if kind not in self._columns:
            rows = self._database.query(
                "SELECT name FROM pragma_table_info(?, 'main') ORDER BY cid", (kind,)
            )
            self._columns[kind] = [row[0] for row in rows]
        return self._columns[kind]


def _typed(key: str, kind: RowKind) -> str:
    """Return SQL for a key as its table has it: the ids of all but threads are numbers."""
    return key if kind == "threads" else f"CAST({key} AS INTEGER)"
