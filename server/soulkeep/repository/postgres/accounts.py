"""The accounts of a server in the database of its homes."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from soulkeep.repository.accounts import STEPS
from soulkeep.repository.postgres.connections import Connection, Server, lock_key, translated
from soulkeep.repository.postgres.schema import TEXT, bootstrap

_NAMED = re.compile(r":(\w+)")
_LOCK = lock_key("accounts")


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
        self._own = _Own()
        self._is_closed = False
        with ExitStack() as on_failure:
            on_failure.callback(self._server.close)
            with self._server.connection() as connection, connection.transaction():
                _migrate(connection)
            on_failure.pop_all()

    def run(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement with values for its `:names`, and return its rows."""
        prepared = _NAMED.sub(r"%(\1)s", statement).encode()
        if self._own.connection is not None:
            with translated(self._server.place):
                return _rows(self._own.connection, prepared, values)
        if statement.startswith("SELECT"):
            return self._server.again(lambda connection: _rows(connection, prepared, values))
        with self._server.connection() as connection:
            return _rows(connection, prepared, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything inside as one durable write, or nothing when an error leaves the block."""
        with self._server.connection() as connection, connection.transaction():
            self._own.connection = connection
            try:
                yield
            finally:
                self._own.connection = None

    def close(self) -> None:
        """Let go of the database; closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._server.close()


def _rows(connection: Connection, statement: bytes, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    done = connection.execute(statement, values)
    return done.fetchall() if done.description else []


def _migrate(connection: Connection) -> None:
    """Bring the tables to version `len(STEPS)`, one process at a time."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    connection.execute("CREATE TABLE IF NOT EXISTS accounts_schema (version integer NOT NULL)")
    found = connection.execute("SELECT version FROM accounts_schema").fetchone()
    for step in STEPS[found[0] if found else 0 :]:
        for statement in step:
            connection.execute(statement.replace(" TEXT", f" {TEXT}").encode())
    if found is None:
        connection.execute("INSERT INTO accounts_schema VALUES (0)")
    connection.execute("UPDATE accounts_schema SET version = %s", [len(STEPS)])
