"""The accounts of a server in the database of its homes."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from soulkeep.errors import SchemaTooNewError
from soulkeep.repository.accounts import STEPS, TABLES
from soulkeep.repository.postgres.connections import Connection, Server, lock_key, translated
from soulkeep.repository.postgres.database import begun, commit
from soulkeep.repository.postgres.schema import TEXT, bootstrap

_NAMED = re.compile(r":(\w+)")
LOCK = lock_key("accounts")
"""The lock of who makes or migrates the tables."""


class _Own(threading.local):
    """The connection over which a thread is inside a transaction."""

    connection: Connection | None = None


class PostgresTables:
    """Tables of accounts, which any number of processes share as they share the homes."""

    def __init__(self, url: str) -> None:
        """Open them in the database at `url`, making or migrating them if need be.

        Raises:
            StoreError: The database cannot serve; the subclass says why.
        """
        self._server = Server.opened(url, bootstrap)
        self.erase = partial(self._server.vacuum, [(table,) for table in TABLES])
        self._own = _Own()
        self._is_closed = False
        with ExitStack() as on_failure:
            on_failure.callback(self._server.close)
            if self._version() < len(STEPS):
                with self.transaction():
                    self._migrate()
            on_failure.pop_all()

    def _version(self) -> int:
        """Return the version of the tables, 0 where there are none."""
        found = "SELECT 1 FROM pg_class WHERE relname = 'accounts_schema' AND pg_table_is_visible(oid)"
        if not self.run(found, {}):  # read in pg_class, what another one has just made is seen at once
            return 0
        ((version,),) = self.run("SELECT version FROM accounts_schema", {})
        if version > len(STEPS):
            raise SchemaTooNewError(f"{self._server.place} (accounts)", version, len(STEPS))
        return int(version)

    def _migrate(self) -> None:
        """Bring the tables to version `len(STEPS)`, one process at a time; inside a transaction."""
        self.run("SELECT pg_advisory_xact_lock(:lock)", {"lock": LOCK})
        version = self._version()
        for step in STEPS[version:]:
            for statement in step:
                self.run(statement.replace(" TEXT", f" {TEXT}"), {})
        if version == 0:
            self.run("CREATE TABLE accounts_schema (version integer NOT NULL)", {})
            self.run("INSERT INTO accounts_schema VALUES (0)", {})
        self.run("UPDATE accounts_schema SET version = :version", {"version": len(STEPS)})

    def run(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement with values for its `:names`, and return its rows."""
        prepared = _NAMED.sub(r"%(\1)s", statement).encode()
        if self._own.connection is not None:
            with translated(self._server.place):
                return _rows(self._own.connection, prepared, values)
        if statement.startswith("SELECT"):
            return self._server.again(lambda connection: _rows(connection, prepared, values))
        with self.transaction():
            return self.run(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything inside as one durable write, or nothing when an error leaves the block."""
        with ExitStack() as stack:
            stack.enter_context(translated(self._server.place))
            connection = begun(self._server, stack, "BEGIN ISOLATION LEVEL READ COMMITTED")
            self._own.connection = connection
            stack.callback(setattr, self._own, "connection", None)
            yield
            ((number,),) = connection.execute("SELECT pg_current_xact_id()::text").fetchall()
            commit(self._server, connection, number)

    def close(self) -> None:
        """Let go of the database; closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._server.close()


def _rows(connection: Connection, statement: bytes, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    done = connection.execute(statement, values)
    return done.fetchall() if done.description else []
