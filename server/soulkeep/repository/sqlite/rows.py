"""All rows of a store in a file, as another engine gives and takes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.values import COLUMNS, GIVE_IDS, OF_ONE_STORE, PLACE, sorted_json


@dataclass(eq=False)
class Rows:
    """The rows of each table of `values.COLUMNS`."""

    _database: Database

    def read(self, table: str, after: Sequence[Any] = (), limit: int = 1_000) -> list[Sequence[Any]]:
        """Return the rows of a table after the one of a key, in the order of keys."""
        keys, others = COLUMNS[table]
        if table == "vec_memories":  # a virtual table, which reads all of itself for an order
            return list(
                self._database.query(
                    "SELECT v.memory_id, v.content_embedding FROM (SELECT rowid AS id"
                    " FROM vec_memories_rowids WHERE rowid > ? ORDER BY rowid LIMIT ?) AS page"
                    " CROSS JOIN vec_memories AS v ON v.memory_id = page.id",
                    (after[0] if after else -1, limit),
                )
            )
        named = ", ".join("rowid" if key == PLACE else key for key in keys)
        conditions = [f"({named}) > ({', '.join('?' * len(after))})"] if after else []
        if table == "store_facts":
            conditions.append(f"name NOT IN {OF_ONE_STORE}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._database.query(
            f"SELECT {', '.join((named, *others))} FROM {table}{where} ORDER BY {named} LIMIT ?",
            (*after, limit),
        )
        if table != "changed_rows":
            return list(rows)
        at = len(keys) + others.index("before")
        return [(*r[:at], sorted_json(r[at] and json.loads(r[at])), *r[at + 1 :]) for r in rows]

    def add(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows, in a recording that is not saved; those that are there stay as they are."""
        keys, others = COLUMNS[table]
        names = [key for key in keys if key != PLACE] + list(others)
        skipped = len(keys) + len(others) - len(names)
        unless = " OR IGNORE"
        if table == "vec_memories":  # a virtual table, which knows no conflicts
            there = self._database.query(
                "SELECT rowid FROM vec_memories_rowids WHERE rowid IN (SELECT value FROM json_each(?))",
                (json.dumps([row[0] for row in rows]),),
            )
            rows, unless = [row for row in rows if (row[0],) not in there], ""
        self._database.execute_many(
            f"INSERT{unless} INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            (tuple(row[skipped:]) for row in rows),
        )
        self._database.execute("DELETE FROM noted")  # none of them is saved as a change

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        source = "vec_memories_rowids" if table == "vec_memories" else table  # without reading vectors
        count: int = self._database.query(f"SELECT count(*) FROM {source}")[0][0]
        return count

    def clear(self) -> None:
        """Delete all rows, in a recording that is not saved; what is of this one store stays."""
        for table in reversed(list(COLUMNS)):
            of_others = f" WHERE name NOT IN {OF_ONE_STORE}" if table == "store_facts" else ""
            self._database.execute(f"DELETE FROM {table}{of_others}")

    def last_ids(self) -> dict[str, int]:
        """Return the last id of each table that gives ids."""
        rows = self._database.query("SELECT name, seq FROM sqlite_sequence")
        return {name: number for name, number in rows if name in GIVE_IDS}

    def continue_ids(self, last: Mapping[str, int]) -> None:
        """Give only ids after these from now on; inside a transaction."""
        now = self.last_ids()
        for name, number in last.items():
            self._database.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            self._database.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)",
                (name, max(number, now.get(name, 0))),
            )
