"""All rows of a home in a database, as another engine gives and takes them."""

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import byteorder
from typing import Any

from soulkeep.repository.postgres.database import Database, columns_of
from soulkeep.repository.postgres.vectors import sent
from soulkeep.repository.values import (
    COLUMNS,
    GIVE_IDS,
    OF_ONE_STORE,
    PLACE,
    dimensions_of,
    sorted_json,
)


@dataclass(eq=False)
class Rows:
    """The rows of each table of `values.COLUMNS`."""

    _database: Database

    def read(self, table: str, after: Sequence[Any] = (), limit: int = 1_000) -> list[Sequence[Any]]:
        """Return the rows of a table after the one of a key, in the order of keys."""
        keys, others = COLUMNS[table]
        named = ", ".join(keys)
        shown = ", ".join(
            "vector_send(content_embedding)" if name == "content_embedding" else name
            for name in (*keys, *others)
        )
        bounds = {f"after_{n}": value for n, value in enumerate(after)}
        further = f" AND ({named}) > ({', '.join(f'%({name})s' for name in bounds)})" if after else ""
        facts = " AND name <> ALL(%(own)s)" if table == "store_facts" else ""
        rows = self._database.query(
            f"SELECT {shown} FROM {table} WHERE owner = %(owner)s{further}{facts}"
            f" ORDER BY {named} LIMIT %(limit)s",
            **bounds,
            own=list(OF_ONE_STORE),
            limit=limit,
        )
        if table == "vec_memories":
            return [(memory_id, _embedding(vector)) for memory_id, vector in rows]
        if table != "changed_rows":
            return list(rows)
        at = len(keys) + others.index("before")
        return [(*row[:at], sorted_json(row[at]), *row[at + 1 :]) for row in rows]

    def add(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows, in a recording that is not saved; those that are there stay as they are."""
        keys, others = COLUMNS[table]
        if table == "vec_memories":
            self._add_vectors(rows)
            return
        names = [key for key in keys if key != PLACE] + list(others)
        skipped = len(keys) + len(others) - len(names)
        records = [dict(zip(names, row[skipped:], strict=True)) for row in rows]
        for record in records:
            if record.get("before") is not None:
                record["before"] = json.loads(record["before"])
        columns = ", ".join(names)
        self._database.execute(
            f"INSERT INTO {table} (owner, {columns}) SELECT %(owner)s, {columns}"
            f" FROM jsonb_populate_recordset(NULL::{table}, %(rows)s::jsonb) ON CONFLICT DO NOTHING",
            rows=json.dumps(records, ensure_ascii=False),
        )

    def _add_vectors(self, rows: Sequence[Sequence[Any]]) -> None:
        made = self._database.execute(
            "INSERT INTO vec_memories (owner, memory_id, content_embedding, candidate)"
            " SELECT %(owner)s, v.id, v.whole, subvector(v.whole, 1, %(dimensions)s)::halfvec"
            " FROM unnest(%(ids)s::bigint[], %(vectors)b::vector[]) AS v (id, whole)"
            " ON CONFLICT DO NOTHING RETURNING 1",
            **columns_of([(row[0], sent(row[1])) for row in rows], "ids", "vectors"),
            dimensions=dimensions_of(self._database.get_fact("embedder")) or len(rows[0][1]) // 4,
        )
        self._database.add_to("vectors", len(made))

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        rows = self._database.query(f"SELECT count(*) FROM {table} WHERE owner = %(owner)s")
        count: int = rows[0][0]
        return count

    def clear(self) -> None:
        """Delete all rows, in a recording that is not saved; what is of this one store stays."""
        for table in reversed(list(COLUMNS)):
            of_others = " AND name <> ALL(%(own)s)" if table == "store_facts" else ""
            self._database.execute(
                f"DELETE FROM {table} WHERE owner = %(owner)s{of_others}", own=list(OF_ONE_STORE)
            )
        self._database.execute("DELETE FROM numbers WHERE owner = %(owner)s AND name = 'vectors'")

    def last_ids(self) -> dict[str, int]:
        """Return the last id of each table that gives ids."""
        last = zip(GIVE_IDS, self._database.numbers(*GIVE_IDS), strict=True)
        return {name: number for name, number in last if number}

    def continue_ids(self, last: Mapping[str, int]) -> None:
        """Give only ids after these from now on; inside a transaction."""
        now = self.last_ids()
        for name, number in last.items():
            if number > now.get(name, 0):
                self._database.add_to(name, number - now.get(name, 0))


def _embedding(vector: bytes) -> bytes:
    """Return float32 values, little-endian, of a vector as pgvector sends it."""
    floats = array("f", vector[4:])
    if byteorder == "little":
        floats.byteswap()
    return floats.tobytes()
