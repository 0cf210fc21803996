"""What was changed, by whom, and each changed row as it was before: the undo log.

Triggers of the database note the rows: what a recording writes is put into `noted_rows` as it was before
the first write, and outside of one the write is refused.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from soulkeep.repository.postgres.database import (
    NO_LIMIT,
    Database,
    columns_of,
    limited,
    possible,
)
from soulkeep.repository.postgres.ledger import MessageTable
from soulkeep.repository.postgres.memories import MemoryTable
from soulkeep.repository.postgres.prompts import ConsentTable
from soulkeep.repository.postgres.schema import RECORDED
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
    " (SELECT count(*) FROM changed_rows AS r WHERE r.owner = c.owner AND r.change_id = c.id)"
)
_IMAGE = "to_jsonb(r) - '{owner,place}'::text[]"
_PAGE = 1_000
"""So many rows of a change are in memory at a time."""

_NUMBER = "CASE WHEN key ~ '^[0-9]{1,18}$' THEN key::bigint ELSE 0 END"


@dataclass(eq=False)
class Recording:
    """A change while it is made: the rows that were noted since it began."""

    _database: Database
    _table: "ChangeTable"

    def rows(self) -> Iterator[ChangedRow]:
        """Yield what has changed until now, in the order of the first writes."""
        each = " UNION ALL ".join(
            # Of what was added it matters only whether it is there.
            "SELECT n.place, n.kind, n.key, n.before, CASE WHEN n.before IS NULL"
            f" THEN to_jsonb(r.owner) ELSE {_IMAGE} END FROM page AS n LEFT JOIN {kind} AS r"
            f" ON r.owner = n.owner AND r.id = n.key{_typed(kind)} WHERE n.kind = '{kind}'"
            for kind in RECORDED
        )
        page = "SELECT * FROM noted_rows WHERE owner = %(owner)s AND place > %(last)s"
        query = f"WITH page AS ({page} ORDER BY place LIMIT {_PAGE}) {each} ORDER BY 1"
        last = 0
        while rows := self._database.query(query, last=last):
            last = rows[-1][0]
            for _, kind, key, before, now in rows:
                after = digest_of_row(now) if before is not None else ADDED if now is not None else None
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
            (change_id,) = self._database.next_ids("changes", 1)
            self._database.execute(
                "INSERT INTO changes (owner, id, made_at, session_id, agent_id, action)"
                " VALUES (%(owner)s, %(id)s, %(now)s, %(session)s, %(agent)s, %(action)s)",
                id=change_id,
                now=now,
                session=session.id,
                agent=session.agent_id,
                action=action,
            )
        while page := list(islice(rows, _PAGE)):
            # Of an edit the row says what it was, of all else what was noted.
            values = [
                (row.kind, row.key, edit_text(row.before), row.after, row.replaced_by) for row in page
            ]
            self._database.execute(
                "INSERT INTO changed_rows AS r (owner, change_id, kind, key, before, after, replaced_by)"
                " SELECT %(owner)s, %(id)s, v.kind, v.key, coalesce(v.before, n.before), v.after,"
                " v.later FROM unnest(%(kinds)s::text[], %(keys)s::text[], %(befores)s::jsonb[],"
                " %(afters)s::text[], %(replaced)s::bigint[]) AS v (kind, key, before, after, later)"
                " LEFT JOIN noted_rows AS n"
                " ON n.owner = %(owner)s AND n.kind = v.kind AND n.key = v.key"
                " ON CONFLICT (owner, change_id, kind, key) DO UPDATE SET after = excluded.after,"
                " before = CASE WHEN r.kind = 'documents' THEN excluded.before ELSE r.before END",
                **columns_of(values, "kinds", "keys", "befores", "afters", "replaced"),
                id=change_id,
            )
        mark = "UPDATE changes SET undone_by = %(id)s WHERE owner = %(owner)s AND id = ANY(%(these)s)"
        self._database.execute(mark, id=change_id, these=list(undone))
        # What an undo had undone is in force again once the undo itself is taken back.
        self._database.execute(
            "UPDATE changes SET undone_by = NULL WHERE owner = %(owner)s"
            " AND undone_by = ANY(%(these)s) AND id <> ALL(%(these)s::bigint[])",
            these=list(undone),
        )
        self._database.execute("DELETE FROM noted_rows WHERE owner = %(owner)s")
        return change_id


@dataclass(eq=False)
class ChangeTable:
    """Rows of changes and changed_rows, and the images of the rows they speak of."""

    _database: Database
    _memories: MemoryTable
    _messages: MessageTable
    _consents: ConsentTable

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Note what is written during the block; inside a transaction."""
        switch = "SELECT set_config('soulkeep.recording', %(to)s, true)"
        self._database.execute(switch, to="on")
        yield Recording(self._database, self)
        self._database.execute(switch, to="off")
        self._database.execute("DELETE FROM noted_rows WHERE owner = %(owner)s")

    def image(self, kind: RowKind, key: str) -> Image | None:
        """Return a row as it is, by its columns; None where there is none."""
        rows = self._database.query(
            f"SELECT {_IMAGE} FROM {kind} AS r WHERE r.owner = %(owner)s"
            f" AND r.id = %(key)s{_typed(kind)}",
            key=key,
        )
        return rows[0][0] if rows else None

    def value(self, kind: RowKind, image: Image | None) -> RowValue | None:
        """Return what an image shows, perhaps one from before a migration."""
        return value_of(kind, image, self._consents.origin)

    def put_back(self, row: ChangedRow, vector: Vector | None, now: str) -> None:
        """Make a row what it was before a change, with all that is derived from it; in a recording.

        Raises:
            UndoConflictError: It is not as the change left it, or its thread or the rows of it hold it.
        """
        noted = self._database.query(
            "SELECT before FROM changed_rows WHERE owner = %(owner)s AND change_id = %(id)s"
            " AND kind = %(kind)s AND key = %(key)s",
            id=row.change_id,
            kind=row.kind,
            key=row.key,
        )
        before: Image | None = noted[0][0] if noted else None
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
            return [
                (kind, key)
                for kind, key in self._database.query(
                    "SELECT 'memories', id::text FROM memories"
                    " WHERE owner = %(owner)s AND thread_id = %(id)s"
                    " UNION ALL SELECT 'messages', m.id::text FROM sessions AS s JOIN messages AS m"
                    " ON m.owner = s.owner AND m.session_id = s.id"
                    " WHERE s.owner = %(owner)s AND s.session_key = %(key)s",
                    id=row.key,
                    key=f"{THREAD_KEY}{row.key}",
                )
            ]
        thread_id = None
        if row.kind == "memories" and before:
            thread_id = before["thread_id"]
        elif row.kind == "messages" and before:
            rows = self._database.query(
                "SELECT session_key FROM sessions WHERE owner = %(owner)s AND id = %(id)s",
                id=before["session_id"],
            )
            thread_id = str(rows[0][0]).removeprefix(THREAD_KEY) if rows else ""
        is_there = thread_id is None or self.image("threads", thread_id) is not None
        return [] if is_there else [("threads", str(thread_id))]

    def _put(self, kind: RowKind, key: str, image: Image | None) -> None:
        """Make a row what an image says, or delete it; a row that is there keeps its activity."""
        if image is None:
            self._database.execute(
                f"DELETE FROM {kind} WHERE owner = %(owner)s AND id = %(key)s{_typed(kind)}", key=key
            )
            return
        # What an image from before a migration does not have gets its default.
        names = [
            name
            for (name,) in self._database.query(
                "SELECT attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attnum > 0"
                " AND NOT attisdropped",
                table=kind,
            )
            if name in image
        ]
        columns = ", ".join(names)
        changed = ", ".join(f"{name} = excluded.{name}" for name in names if name != ACTIVITY)
        self._database.execute(
            f"INSERT INTO {kind} (owner, {columns}) SELECT %(owner)s, {columns}"
            f" FROM jsonb_populate_record(NULL::{kind}, %(image)s::jsonb)"
            f" ON CONFLICT (owner, id) DO UPDATE SET {changed}",
            image=json.dumps(image, ensure_ascii=False),
        )

    def get_change(self, change_id: int) -> Change:
        """Return one change.

        Raises:
            ChangeNotFoundError: There is none with this id, or it is no longer kept.
        """
        found = self._changes("id = %(id)s", 1, id=change_id)
        if not found:
            raise ChangeNotFoundError(change_id)
        return found[0]

    def list_changes(self, limit: int, before: int | None = None, since: str = "") -> list[Change]:
        """Return up to `limit` changes with ids below `before`, made since a moment, latest first."""
        below = NO_LIMIT if before is None else before
        return self._changes("id < %(below)s AND made_at >= %(since)s", limit, below=below, since=since)

    def _changes(self, where: str, limit: int, **values: object) -> list[Change]:
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM changes AS c WHERE owner = %(owner)s AND {where}"
            " ORDER BY id DESC LIMIT %(limit)s",
            **values,
            limit=limited(limit),
        )
        return [Change(*row) for row in rows]

    def rows_of(self, change_id: int, limit: int = -1) -> list[ChangedRow]:
        """Return what a change did to rows, of those first that tell most of it."""
        weightiest = "strpos('threads,global_prompts,memories,documents,messages', kind)"
        order = f"{weightiest}, {_NUMBER}, key"
        return self._rows("change_id = %(id)s", order=order, limit=limit, id=change_id)

    def each_row(self, change_id: int, kind: RowKind) -> Iterator[ChangedRow]:
        """Yield what a change did to rows of a kind, some at a time."""
        keys = self._database.query(
            "SELECT key FROM changed_rows WHERE owner = %(owner)s AND change_id = %(id)s"
            f" AND kind = %(kind)s ORDER BY {_NUMBER}, key",
            id=change_id,
            kind=kind,
        )
        for at in range(0, len(keys), _PAGE):
            yield from self._rows(
                "change_id = %(id)s AND kind = %(kind)s AND key = ANY(%(keys)s)",
                order=f"{_NUMBER}, key",
                id=change_id,
                kind=kind,
                keys=[key for (key,) in keys[at : at + _PAGE]],
            )

    def after(self, row: ChangedRow) -> RowValue | None:
        """Return a row as a change left it: as the next change found it, or as it is."""
        later = self._rows(
            "kind = %(kind)s AND key = %(key)s AND change_id > %(id)s",
            order="change_id",
            limit=1,
            kind=row.kind,
            key=row.key,
            id=row.change_id,
        )
        return later[0].before if later else self.value(row.kind, self.image(row.kind, row.key))

    def rows_about(self, kind: RowKind, *keys: str) -> list[ChangedRow]:
        """Return what changes did to rows of these keys, or to all of a kind, oldest first."""
        these = " AND key = ANY(%(keys)s)" if keys else ""
        return self._rows(f"kind = %(kind)s{these}", kind=kind, keys=list(keys))

    def _rows(
        self, where: str, *, order: str = "change_id, kind, key", limit: int = -1, **values: object
    ) -> list[ChangedRow]:
        rows = self._database.query(
            "SELECT change_id, kind, key, before, after, replaced_by FROM changed_rows AS r"
            f" WHERE owner = %(owner)s AND {where} ORDER BY {order} LIMIT %(limit)s",
            **values,
            limit=limited(limit),
        )
        return [
            ChangedRow(kind, key, self.value(kind, before), after, by, change)
            for change, kind, key, before, after, by in rows
        ]

    def latest_ids(self, memory_ids: Iterable[int]) -> dict[int, int]:
        """Return for each id the last that came in its place, one after another; or the id itself."""
        latest = {memory_id: memory_id for memory_id in memory_ids}
        # What the log says last of a memory counts: 0 where that is not that another took its place.
        rows = self._database.query(
            "WITH RECURSIVE chain (asked, id, step) AS"
            " (SELECT a, a, 0 FROM unnest(%(ids)s::bigint[]) AS a"
            " UNION ALL SELECT asked, coalesce((SELECT CASE WHEN r.after IS NULL"
            " THEN coalesce(r.replaced_by, 0) ELSE 0 END"
            " FROM changed_rows AS r WHERE r.owner = %(owner)s AND r.kind = 'memories'"
            " AND r.key = chain.id::text ORDER BY r.change_id DESC LIMIT 1),"
            " (SELECT later_id FROM former_ids WHERE owner = %(owner)s AND memory_id = chain.id), 0),"
            " step + 1 FROM chain WHERE id <> 0)"
            " SELECT asked, id FROM chain WHERE id <> 0 ORDER BY step",
            ids=possible(latest),
        )
        return latest | dict(rows)

    def replaced_by(self, memory_ids: Iterable[int]) -> set[int]:
        """Return the ids of the memories that one of these replaced."""
        rows = self._database.query(
            "SELECT DISTINCT key FROM changed_rows"
            " WHERE owner = %(owner)s AND replaced_by = ANY(%(ids)s)",
            ids=possible(list(memory_ids)),
        )
        return {int(row[0]) for row in rows}

    def latest_of(self, keys: Sequence[tuple[str, str]], above: int, but: Sequence[int]) -> list[int]:
        """Return for each row the last change of it in force with an id above one, but for some.

        An undo counts where there is nothing else: to take it back would bring back what it undid.
        """
        rows = self._database.query(
            "SELECT DISTINCT latest.id FROM unnest(%(kinds)s::text[], %(keys)s::text[]) AS k (kind, key)"
            " CROSS JOIN LATERAL (SELECT coalesce(max(r.change_id) FILTER (WHERE c.action <> 'undo'),"
            " max(r.change_id)) AS id FROM changed_rows AS r"
            " JOIN changes AS c ON c.owner = r.owner AND c.id = r.change_id"
            " WHERE r.owner = %(owner)s AND c.undone_by IS NULL AND r.kind = k.kind AND r.key = k.key"
            " AND r.change_id > %(above)s AND r.change_id <> ALL(%(but)s::bigint[])) AS latest"
            " WHERE latest.id IS NOT NULL",
            **columns_of(list(keys), "kinds", "keys"),
            above=above,
            but=possible(but),
        )
        return [row[0] for row in rows]

    def list_trash(self, limit: int, before: int | None = None) -> list[ChangedRow]:
        """Return memories that are gone by changes below `before`, as they last were, latest first."""
        return self._rows(
            "kind = 'memories' AND after IS NULL AND change_id < %(below)s"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS later WHERE later.owner = r.owner"
            " AND later.kind = 'memories' AND later.key = r.key AND later.change_id > r.change_id)"
            " AND before ->> 'document' IS NULL",
            order="change_id DESC, key",
            limit=limit,
            below=NO_LIMIT if before is None else before,
        )

    def imported(self, digests: Collection[str]) -> set[str]:
        """Return those of these digests that were noted with a change which is not undone."""
        rows = self._database.query(
            "SELECT i.digest FROM imported AS i LEFT JOIN changes AS c"
            " ON c.owner = i.owner AND c.id = i.change_id"
            " WHERE i.owner = %(owner)s AND i.digest = ANY(%(these)s) AND c.undone_by IS NULL",
            these=list(digests),
        )
        return {row[0] for row in rows}

    def note_imported(self, digests: Collection[str], change_id: int) -> None:
        """Note records as taken in by a change; inside a transaction."""
        self._database.execute(
            "INSERT INTO imported (owner, digest, change_id)"
            " SELECT %(owner)s, digest, %(id)s FROM unnest(%(these)s::text[]) AS digest"
            " ON CONFLICT (owner, digest) DO UPDATE SET change_id = excluded.change_id",
            these=list(digests),
            id=change_id,
        )

    def delete_rows(self, rows: Sequence[ChangedRow]) -> None:
        """Delete what changes did to rows, and changes that did nothing else; inside a transaction."""
        self._database.execute(
            "DELETE FROM changed_rows AS r USING unnest(%(ids)s::bigint[], %(kinds)s::text[],"
            " %(keys)s::text[]) AS d (id, kind, key) WHERE r.owner = %(owner)s"
            " AND r.change_id = d.id AND r.kind = d.kind AND r.key = d.key",
            **columns_of([(r.change_id, r.kind, r.key) for r in rows], "ids", "kinds", "keys"),
        )
        self._database.execute(
            "DELETE FROM changes AS c WHERE c.owner = %(owner)s AND c.id = ANY(%(ids)s)"
            " AND NOT EXISTS"
            " (SELECT 1 FROM changed_rows AS r WHERE r.owner = c.owner AND r.change_id = c.id)",
            ids=sorted({row.change_id for row in rows}),
        )

    def delete_before(self, moment: str | None) -> int:
        """Delete changes made before a timestamp, or all; inside a transaction. Return how many.

        To which memories the ids of others lead is kept.
        """
        which = "c.owner = %(owner)s" + ("" if moment is None else " AND c.made_at < %(moment)s")
        self._database.execute(
            "INSERT INTO former_ids (owner, memory_id, later_id)"
            " SELECT r.owner, r.key::bigint, r.replaced_by FROM changed_rows AS r JOIN changes AS c"
            f" ON c.owner = r.owner AND c.id = r.change_id WHERE {which}"
            " AND r.kind = 'memories' AND r.after IS NULL AND r.replaced_by IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS later WHERE later.owner = r.owner"
            " AND later.kind = 'memories' AND later.key = r.key AND later.change_id > r.change_id)"
            " ON CONFLICT (owner, memory_id) DO UPDATE SET later_id = excluded.later_id",
            moment=moment,
        )
        self._database.execute(
            "DELETE FROM imported AS i USING changes AS c WHERE c.owner = i.owner"
            f" AND c.id = i.change_id AND c.undone_by IS NOT NULL AND {which}",
            moment=moment,
        )
        gone = f"DELETE FROM changes AS c WHERE {which} RETURNING 1"
        return len(self._database.execute(gone, moment=moment))


def _typed(kind: RowKind | str) -> str:
    """Return what follows a key in SQL, as its table has it: the ids of all but threads are numbers."""
    return "" if kind == "threads" else "::bigint"
