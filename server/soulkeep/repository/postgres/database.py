"""The rows of one home in a database: queries, transactions that lock it, and moments that stand still.

Who writes locks the row of the home first, so that one at a time writes into a home, in the order of
asking, and others read beside it. Every statement is handed the home as `owner`.
"""

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg

from soulkeep.errors import IdTooLargeError, StoreBusyError, StoreError
from soulkeep.repository import CommitUnknownError, StoreUnreachableError
from soulkeep.repository.postgres.connections import (
    ATTEMPTS,
    PASSING,
    PATIENCE_S,
    Connection,
    Server,
    translated,
)
from soulkeep.repository.postgres.schema import bootstrap

Row = tuple[Any, ...]

LARGEST_ID = 2**63 - 1

_PAUSE_S = 0.02

NO_LIMIT = 2**62

NEXT_IDS = (
    "WITH last AS (INSERT INTO numbers (owner, name, value) VALUES (%(owner)s, %(table)s, %(count)s)"
    " ON CONFLICT (owner, name) DO UPDATE SET value = numbers.value + excluded.value RETURNING value)"
)
"""Begins a statement that adds `count` rows to a `table`: their ids are the last up to `last.value`."""

_MARK = (
    b"WITH marked AS (UPDATE owners SET revision = revision + 1 WHERE owner = %s)"
    b" SELECT pg_current_xact_id()::text"
)


class _Own(threading.local):
    """The one connection that a thread uses meanwhile: inside a transaction, or a snapshot."""

    connection: Connection | None = None
    writes = False


class Database:
    """The rows of one home, over the connections that all homes of the process share."""

    def __init__(self, url: str, owner: str) -> None:
        """Open the home `owner` in the database at `url`, making what is missing.

        Raises:
            StoreError: The database cannot serve; the subclass says why.
        """
        self.owner = owner
        self.server = Server.opened(url, bootstrap)
        self.place = self.server.place
        self._own = _Own()
        self._is_closed = False
        with ExitStack() as on_failure:
            on_failure.callback(self.server.close)
            home = "INSERT INTO owners (owner) VALUES (%(owner)s) ON CONFLICT DO NOTHING"
            self.number: int
            with translated(self.place):
                self.server.again(lambda connection: connection.execute(home, {"owner": owner}))
                ((self.number,),) = self.query("SELECT number FROM owners WHERE owner = %(owner)s")
            on_failure.pop_all()

    def query(self, statement: str, **values: object) -> list[Row]:
        """Run a statement that only reads, and return its rows; it waits for no writer.

        Inside a transaction or snapshot of this thread it sees what that does, else what is committed.

        Raises:
            StoreError: PostgreSQL could not do it.
            IdTooLargeError: A number among the values is one that no row can have.
            InvalidInputError: A text among them is none that the store can hold.
        """
        values = self._checked(values)
        if self._own.connection is not None:
            with translated(self.place):
                return self._own.connection.execute(_sql(statement), values).fetchall()
        if self._is_closed:
            raise StoreError(self.place, "the store was closed", "open it again")
        return self.server.again(
            lambda connection: connection.execute(_sql(statement), values).fetchall()
        )

    def execute(self, statement: str, **values: object) -> list[Row]:
        """Run a statement that may write, inside a transaction of this thread; return its rows.

        Raises:
            As `query`.
        """
        if not self.in_transaction or self._own.connection is None:
            raise StoreError(self.place, "written outside a transaction", "report this as a fault")
        values = self._checked(values)
        with translated(self.place):
            done = self._own.connection.execute(_sql(statement), values)
            return done.fetchall() if done.description else []

    def _checked(self, values: dict[str, object]) -> dict[str, object]:
        for value in values.values():
            numbers = value if isinstance(value, list) else (value,)
            if any(isinstance(number, int) and number > LARGEST_ID for number in numbers):
                raise IdTooLargeError
        return {**values, "owner": self.owner}

    def next_ids(self, name: str, count: int) -> list[int]:
        """Return ids for new rows of a table, larger than all before; inside a transaction."""
        last = self.add_to(name, count)
        return list(range(last - count + 1, last + 1))

    def add_to(self, name: str, count: int) -> int:
        """Add to a number of the home and return it; inside a transaction."""
        ((value,),) = self.execute(
            "INSERT INTO numbers (owner, name, value) VALUES (%(owner)s, %(name)s, %(count)s)"
            " ON CONFLICT (owner, name) DO UPDATE SET value = numbers.value + excluded.value"
            " RETURNING value",
            name=name,
            count=count,
        )
        return int(value)

    def numbers(self, *names: str) -> list[int]:
        """Return numbers of the home, 0 for one that is not there."""
        rows: dict[str, int] = dict(
            self.query(
                "SELECT name, value FROM numbers WHERE owner = %(owner)s AND name = ANY(%(names)s)",
                names=list(names),
            )
        )
        return [int(rows.get(name, 0)) for name in names]

    def get_fact(self, name: str) -> str | None:
        """Return what was noted of the store under a name."""
        rows = self.query(
            "SELECT value FROM store_facts WHERE owner = %(owner)s AND name = %(name)s", name=name
        )
        return str(rows[0][0]) if rows else None

    def put_fact(self, name: str, value: str | None) -> None:
        """Note something of the store, or with None take it away; inside a transaction."""
        if value is None:
            self.execute(
                "DELETE FROM store_facts WHERE owner = %(owner)s AND name = %(name)s", name=name
            )
        else:
            self.execute(
                "INSERT INTO store_facts (owner, name, value) VALUES (%(owner)s, %(name)s, %(value)s)"
                " ON CONFLICT (owner, name) DO UPDATE SET value = excluded.value",
                name=name,
                value=value,
            )

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return self._own.connection is not None and self._own.writes

    def revision(self) -> tuple[int, int]:
        """Return what is another after each commit: at once after one from here, soon after others."""
        return self.server.revision(self.owner)

    @contextmanager
    def transaction(self, *, durable: bool = True, waiting: bool = True) -> Iterator[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block.

        Raises:
            StoreBusyError: Another kept the home, or without `waiting` has it now.
            StoreUnreachableError: The connection was lost before the end; nothing was written.
            CommitUnknownError: It was lost at the end, and the database cannot be asked what it did.
        """
        if self._own.connection is not None:
            raise StoreError(self.place, "a transaction inside another", "report this as a fault")
        with ExitStack() as stack:
            stack.enter_context(translated(self.place))
            connection = self._begun(stack, durable=durable, waiting=waiting)
            with self._using(connection, writes=True):
                yield
            ((number,),) = connection.execute(_MARK, [self.owner]).fetchall()
            commit(self.server, connection, number)
            self.server.announce(self.owner, connection)

    def _begun(self, stack: ExitStack, *, durable: bool, waiting: bool) -> Connection:
        """Return a connection in a transaction that has the home's lock; nothing is written as yet."""
        local = {"lock_timeout": f"{PATIENCE_S}s", "soulkeep.recording": "off"}
        if not durable:
            local["synchronous_commit"] = "off"
        # Whatever the database has as its default: who waited for the lock has to see what was done.
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED; " + "; ".join(
            f"SET LOCAL {name} = '{value}'" for name, value in local.items()
        )
        lock = f"SELECT revision FROM owners WHERE owner = %s FOR UPDATE{'' if waiting else ' NOWAIT'}"
        return begun(self.server, stack, begin, (lock, [self.owner]))

    @contextmanager
    def _using(self, connection: Connection, *, writes: bool) -> Iterator[None]:
        self._own.connection, self._own.writes = connection, writes
        try:
            yield
        finally:
            self._own.connection, self._own.writes = None, False

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read inside be of one moment, however others write meanwhile."""
        if self._own.connection is not None:
            yield
            return
        with ExitStack() as stack:
            # The first look is the moment.
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            connection = begun(self.server, stack, begin, ("SELECT 1", []))
            with self._using(connection, writes=False):
                yield

    def close(self) -> None:
        """Let go of the database; closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self.server.close()


def begun(
    server: Server, stack: ExitStack, begin: str, *statements: tuple[str, list[object]]
) -> Connection:
    """Return a connection, lent until the stack ends, in a transaction that nothing is written in.

    It is begun with `begin`, then by statements that only look and lock; what fails in passing is
    tried again.

    Raises:
        StoreBusyError: Another kept what one of them locks.
        StoreError: It failed for another reason, or every time.
    """
    for attempt in range(ATTEMPTS):
        with ExitStack() as attempted:
            connection = attempted.enter_context(server.connection())
            attempted.callback(_end, connection)
            try:
                connection.execute(begin.encode())
                for statement, values in statements:
                    connection.execute(statement.encode(), values)
            except psycopg.errors.LockNotAvailable as error:
                raise StoreBusyError(server.place) from error
            except PASSING:
                if attempt + 1 == ATTEMPTS:
                    raise
            else:
                stack.push(attempted.pop_all())
                return connection
        server.mend()
    raise AssertionError


def commit(server: Server, connection: Connection, number: str) -> None:
    """Commit the transaction of a number; make sure of it where the connection is lost just then.

    Raises:
        StoreUnreachableError: The connection was lost before it; nothing was written.
        CommitUnknownError: It was lost, and the database cannot be asked what it did.
    """
    try:
        connection.execute("COMMIT")
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if not connection.closed:  # the server has refused it, and said so
            raise
        _require_committed(server, number, connection.timeline, error)


def _require_committed(server: Server, number: str, timeline: str, error: psycopg.Error) -> None:
    server.mend()
    ask = b"SELECT pg_xact_status(%s::text::xid8)"
    until = time.monotonic() + PATIENCE_S
    try:
        # The database may not have noticed yet that nobody is there any more.
        while True:
            status, now = server.again(
                lambda other: (other.execute(ask, [number]).fetchone(), other.timeline)
            )
            if status != ("in progress",) or time.monotonic() > until:
                break
            time.sleep(_PAUSE_S)
    except StoreError as lost:
        raise CommitUnknownError(server.place) from lost
    if status == ("aborted",):
        raise StoreUnreachableError(server.place, "the connection was lost") from error
    if status != ("committed",) or now != timeline:
        raise CommitUnknownError(server.place) from error


def _end(connection: Connection) -> None:
    if not connection.closed and connection.info.transaction_status:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")


def possible(ids: Collection[int]) -> list[int]:
    """Return those of these numbers that a row can have as its id."""
    return sorted({number for number in ids if -LARGEST_ID <= number <= LARGEST_ID})


def limited(limit: int) -> int:
    """Return a limit as SQL has it."""
    return NO_LIMIT if limit < 0 else limit


def columns_of(rows: Sequence[Sequence[Any]], *names: str) -> dict[str, object]:
    """Return rows by their columns, for `unnest`."""
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _sql(statement: str) -> bytes:
    # Statements are put together from constants of the package; values are always bound.
    return statement.encode()
