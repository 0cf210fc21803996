"""Entries of documents among the memories, and which state of each file they are derived from."""

import json
from collections.abc import Sequence

from soulkeep.models import Memory, MemoryFilter
from soulkeep.repository.sqlite.conditions import conditions
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.memories import COLUMNS


class DocumentTable:
    """Memories that are derived from lines of a document."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_entries(self, name: str) -> list[Memory]:
        """Return the memories that are entries of a document."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m WHERE m.document = ? ORDER BY m.id", (name,)
        )
        return [Memory._make(row) for row in rows]

    def states(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Return for each indexed document, or those of these names, the state of its file then."""
        if names is None:
            return dict(self._database.query("SELECT name, state FROM document_states"))
        rows = self._database.query(
            "SELECT name, state FROM json_each(?) AS wanted"
            " CROSS JOIN document_states ON name = wanted.value",
            (json.dumps(list(names)),),
        )
        return dict(rows)

    def names(self) -> set[str]:
        """Return the documents that are indexed, or that memories are said to be entries of."""
        rows = self._database.query(
            "SELECT name FROM document_states"
            " UNION SELECT document FROM memories WHERE document IS NOT NULL"
        )
        return {row[0] for row in rows}

    def ids_of_source(self, document: str, source: str, allowed: MemoryFilter, limit: int) -> list[int]:
        """Return the ids of up to `limit` entries of a document that have a source.

        In any case, and with any signs in the place of its spaces, at its end too.
        """
        where, values = conditions(allowed)
        rows = self._database.query(
            "SELECT m.id FROM memories AS m WHERE m.document = :document AND m.source LIKE :source"
            f"{where} ORDER BY m.id DESC LIMIT :limit",
            {**values, "document": document, "source": f"{source.replace(' ', '%')}%", "limit": limit},
        )
        return [row[0] for row in rows]

    def forget_states(self) -> None:
        """Let every document be read again, whatever is known of it; inside a transaction."""
        self._database.execute("UPDATE document_states SET state = ''")

    def put_state(self, name: str, state: str | None) -> None:
        """Record the state of a file whose entries are indexed now; None forgets the file."""
        if state is None:
            self._database.execute("DELETE FROM document_states WHERE name = ?", (name,))
        else:
            self._database.execute(
                "INSERT OR REPLACE INTO document_states (name, state) VALUES (?, ?)", (name, state)
            )
