"""What was changed, by whom, and each changed row as it was before: the undo log."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from soulkeep.errors import ChangeNotFoundError
from soulkeep.models import Change, ChangedRow, Image, Session, TableName
from soulkeep.repository.sqlite.database import Database

_KEYS: dict[TableName, str] = {
    "memories": "id",
    "threads": "id",
    "global_prompts": "id",
    "messages": "id",
}
_COLUMNS = "id, made_at, agent_id, action, undone_by"

_ACTIVITY = "last_active_at"
"""Moves with every use of a row, which is no change of it."""


class ChangeTable:
    """Rows of changes and changed_rows, and the images of the rows they speak of."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._columns: dict[str, list[str]] = {}

    def image(self, kind: TableName, key: str) -> Image | None:
        """Return a row as it is, by its columns; None where there is none."""
        columns = self._columns_of(kind)
        rows = self._database.query(
            f"SELECT {', '.join(columns)} FROM {kind} WHERE {_KEYS[kind]} = ?", (_typed(kind, key),)
        )
        return dict(zip(columns, rows[0], strict=True)) if rows else None

    def digest(self, image: Image | None) -> str | None:
        """Return a short text that differs for rows that differ in more than activity."""
        return digest(image)

    def put_image(self, kind: TableName, key: str, image: Image | None) -> None:
        """Make a row what an image says, or delete it; inside a transaction.

        Columns that an image from before a migration does not have get their defaults, and a row that is
        there keeps its activity.
        """
        if image is None:
            self._database.execute(f"DELETE FROM {kind} WHERE {_KEYS[kind]} = ?", (_typed(kind, key),))
            return
        known = {name: value for name, value in image.items() if name in self._columns_of(kind)}
        names = list(known)
        self._database.execute(
            f"INSERT INTO {kind} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            f" ON CONFLICT ({_KEYS[kind]}) DO UPDATE SET"
            f" {', '.join(f'{name} = excluded.{name}' for name in names if name != _ACTIVITY)}",
            list(known.values()),
        )

    def add_change(self, action: str, session: Session, now: str) -> int:
        """Insert a change; inside the transaction that makes it. Return its id."""
        self._database.execute(
            "INSERT INTO changes (made_at, session_id, agent_id, action) VALUES (?, ?, ?, ?)",
            (now, session.id, session.agent_id, action),
        )
        return self._database.last_row_id

    def add_rows(self, change_id: int, rows: Iterable[ChangedRow]) -> None:
        """Insert what a change did to rows; inside a transaction."""
        self._database.execute_many(
            "INSERT INTO changed_rows (change_id, kind, key, before, after, replaced_by)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    change_id,
                    row.kind,
                    row.key,
                    None if row.before is None else json.dumps(row.before, ensure_ascii=False),
                    row.after,
                    row.replaced_by,
                )
                for row in rows
            ),
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

    def last_id(self) -> int:
        """Return the id of the last change; 0 where there is none."""
        return int(self._database.query("SELECT ifnull(max(id), 0) FROM changes")[0][0])

    def lists_threads_anew(self, after: int) -> bool:
        """Whether the changes after one made, deleted, renamed, archived or resumed a thread."""
        rows = self._database.query(
            "SELECT 1 FROM changed_rows AS r LEFT JOIN threads AS t ON t.id = r.key"
            " WHERE r.change_id > ? AND r.kind = 'threads' AND (r.before IS NULL OR t.id IS NULL"
            " OR t.title IS NOT r.before ->> 'title' OR t.archived IS NOT r.before ->> 'archived')"
            " LIMIT 1",
            (after,),
        )
        return bool(rows)

    def rows_of(self, change_id: int) -> list[ChangedRow]:
        """Return what a change did to rows."""
        return self._rows("change_id = ?", change_id)

    def first_rows(self, change_id: int, limit: int) -> list[ChangedRow]:
        """Return what a change did to up to `limit` rows, of those that tell most of it."""
        weightiest = "instr('threads,global_prompts,memories,documents,messages', kind)"
        order = f"{weightiest}, CAST(key AS INTEGER), key"
        return self._rows("change_id = ?", change_id, order=order, limit=limit)

    def image_after(self, kind: TableName, key: str, change_id: int) -> Image | None:
        """Return a row as a change left it: as the next change found it, or as it is."""
        later = self._rows(
            "kind = ? AND key = ? AND change_id > ?", kind, key, change_id, order="change_id", limit=1
        )
        return later[0].before if later else self.image(kind, key)

    def row_counts(self, change_ids: Sequence[int]) -> dict[int, int]:
        """Return how many rows each of these changes touched."""
        rows = self._database.query(
            "SELECT change_id, count(*) FROM changed_rows"
            " WHERE change_id IN (SELECT value FROM json_each(?)) GROUP BY 1",
            (json.dumps(list(change_ids)),),
        )
        return dict(rows)

    def rows_about(self, kind: TableName, *keys: str) -> list[ChangedRow]:
        """Return what changes did to rows of these keys, oldest first."""
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
            ChangedRow(kind, key, None if before is None else json.loads(before), after, by, change)
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

    def mark_undone(self, change_ids: Sequence[int], by: int | None) -> None:
        """Record which change undid these; inside a transaction."""
        self._database.execute_many(
            "UPDATE changes SET undone_by = ? WHERE id = ?",
            ((by, i) for i in change_ids),
        )

    def undone_by(self, change_id: int) -> list[int]:
        """Return the ids of the changes that a change undid."""
        rows = self._database.query("SELECT id FROM changes WHERE undone_by = ?", (change_id,))
        return [row[0] for row in rows]

    def list_trash(self, limit: int, before: int | None = None) -> list[ChangedRow]:
        """Return up to `limit` memories that are gone, each as it last was, latest first.

        Only those whose change has an id below `before`.
        """
        return self._rows(
            "kind = 'memories' AND after IS NULL AND change_id < ?"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS later WHERE later.kind = 'memories'"
            " AND later.key = changed_rows.key AND later.change_id > changed_rows.change_id)"
            " AND before ->> 'document' IS NULL",
            2**62 if before is None else before,
            order="change_id DESC, key",
            limit=limit,
        )

    def find_saying(self, texts: Sequence[str]) -> list[tuple[str, str]]:
        """Return kind and key of the rows that once held one of the texts, as the log has them."""
        rows = self._database.query(
            "SELECT DISTINCT r.kind, r.key FROM json_each(?) AS said CROSS JOIN changed_rows AS r"
            " ON instr(ifnull(r.before ->> 'content', r.before ->> 'system_prompt'), said.value)"
            " ORDER BY r.kind, r.key",
            (json.dumps(list(texts)),),
        )
        return [(row[0], row[1]) for row in rows]

    def edits_of_documents(self, change_ids: Iterable[int] | None = None) -> list[ChangedRow]:
        """Return what changes, or these of them, did to documents, oldest first."""
        if change_ids is None:
            return self._rows("kind = 'documents'")
        wanted = json.dumps(sorted(set(change_ids)))
        return self._rows("kind = 'documents' AND change_id IN (SELECT value FROM json_each(?))", wanted)

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

    def delete_all(self) -> int:
        """Delete all changes; inside a transaction. Return how many there were."""
        return self._delete_changes("TRUE")

    def delete_before(self, moment: str) -> int:
        """Delete changes made before a timestamp; inside a transaction. Return how many."""
        return self._delete_changes("made_at < ?", moment)

    def _delete_changes(self, which: str, *values: object) -> int:
        """Delete changes, but not to which memories the ids of others lead."""
        self._database.execute(
            "INSERT OR REPLACE INTO former_ids (memory_id, later_id)"
            " SELECT CAST(r.key AS INTEGER), r.replaced_by FROM changed_rows AS r"
            f" WHERE r.change_id IN (SELECT id FROM changes WHERE {which})"
            " AND r.kind = 'memories' AND r.after IS NULL AND r.replaced_by IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM changed_rows AS later WHERE later.kind = 'memories'"
            " AND later.key = r.key AND later.change_id > r.change_id)",
            values,
        )
        return len(self._database.execute(f"DELETE FROM changes WHERE {which} RETURNING id", values))

    def _columns_of(self, kind: TableName) -> list[str]:
        if kind not in self._columns:
            rows = self._database.query("SELECT name FROM pragma_table_info(?) ORDER BY cid", (kind,))
            self._columns[kind] = [row[0] for row in rows]
        return self._columns[kind]


def digest(image: Image | None) -> str | None:
    """Return a short text that differs for rows that differ in more than activity; None for no row."""
    if image is None:
        return None
    compared = {name: value for name, value in image.items() if name != _ACTIVITY}
    text = json.dumps(compared, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _typed(kind: TableName, key: str) -> str | int:
    return key if kind == "threads" else int(key)
