"""The file of a server's accounts, beside the homes."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from soulkeep.repository.accounts import STEPS
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.schema import STORE_FACTS, STORE_ID, bootstrap
from soulkeep.repository.sqlite.upkeep import erase_file


class SqliteTables:
    """Tables of accounts in one file, which any number of processes of one machine share."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, making or migrating it if need be.

        Raises:
            StoreError: The file cannot serve; the subclass says why.
        """
        first, *later = STEPS
        with ExitStack() as on_failure:
            database = Database(path)
            on_failure.callback(database.close)
            bootstrap(database, ((STORE_FACTS, STORE_ID, *first), *later))
            database.note_identity()
            on_failure.pop_all()
        self._database = database
        self.transaction, self.close = database.transaction, database.close
        self.erase = partial(erase_file, database)

    def run(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement with values for its `:names`, and return its rows."""
        if statement.startswith("SELECT"):
            return self._database.query(statement, values)
        return self._database.execute(statement, values)
