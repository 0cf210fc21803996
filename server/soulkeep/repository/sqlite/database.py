"""A store's file as its tables use it: one connection that writes, those that read, and transactions."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import apsw

from soulkeep.errors import (
    HALF_A_PAIR,
    IdTooLargeError,
    InvalidInputError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreNotWritableError,
)
from soulkeep.repository.sqlite.connections import (
    BUSY_TIMEOUT_S,
    OpenFiles,
    Readers,
    is_for_want_of_room,
    load_vectors,
    open_beside,
    open_to_read,
    open_to_write,
    require_same_store,
    set_aside_foreign_log,
    translated,
)
from soulkeep.repository.sqlite.files import MainFile, create_file, recognise, store_identity

CLOSING_S = 5.0
"""How long what closes the file waits for those who are reading it."""

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]


class _Own(threading.local):
    """The one connection that a thread uses meanwhile: inside a transaction, or a snapshot."""

    connection: apsw.Connection | None = None

    @contextmanager
    def using(self, connection: apsw.Connection) -> Iterator[None]:
        """Let this thread use a connection during the block."""
        before, self.connection = self.connection, connection
        try:
            yield
        finally:
            self.connection = before


class Database:
    """SQLite connections with sqlite-vec, shared by the threads of this process.

    One writes, and a lock serialises the threads that do. `query` reads over it while nobody uses it:
    it keeps pages in memory that the others read anew after each commit. Else it reads over those, which
    wait for no writer. Several processes work on one file side by side through WAL. On a full disk there
    is one connection, which only reads, until there is room again.
    """

    _is_open = _is_closed = _is_writing_back = False
    _patience_ms = BUSY_TIMEOUT_S * 1000
    only_reads = False
    """Whether the disk was full when the file was opened."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, making it and its folder if they are missing.

        Raises:
            NotAStoreError: The path holds something else, which is left untouched.
            StoreNotWritableError: The file cannot be opened for writing.
            StoreError: SQLite refuses for another reason.
        """
        self.path = path
        self.generation = 0
        self._lock = threading.RLock()
        self._own = _Own()
        self._known: tuple[str | None, int] = (None, 0)
        create_file(path)
        recognise(path)
        set_aside_foreign_log(path)
        with translated(path):
            self._open()

    def _open(self) -> None:
        try:
            self._connection = open_to_write(self.path, self._patience_ms)
            self._durable = self.only_reads = False
        except apsw.Error as error:
            if not is_for_want_of_room(error, self.path):
                raise
            self._connection, self.only_reads = open_to_read(self.path), True
            load_vectors(self._connection)
        self._files = OpenFiles(self.path)
        looking = self._connection if self.only_reads else open_beside(self.path, keeps_pages=False)
        self._main = MainFile(self.path, looking, self._known[0])
        # The last: what reads looks at all of these.
        self._readers = Readers(self.path, self._files, self._is_current)
        self._is_open = True

    def note_identity(self) -> None:
        """Note which store this is, so that only a copy of it can come in its place."""
        with self._lock, translated(self.path):
            self._known = store_identity(self._connection)
            self._main.store_id = self._known[0]

    def _ready(self, *, to_write: bool = False) -> apsw.Connection:
        """Return the connection, opened anew where another file has come in the store's place.

        Reading does without the log's name: what it held stays with the connection.

        Raises:
            StoreGoneError: There is no file; what is written would be lost with the one that is open.
            StoreFullError: It is to be written, and the disk is still full.
            StoreOverwrittenError: Something else was written into the file.
            StoreError: What stands there is no copy of this store.
        """
        if self._is_closed:
            raise apsw.ConnectionClosedError("the store was closed")
        if self.only_reads and self._is_open and self._files.store_stands:
            return self._ready_where_full(to_write=to_write)
        if (
            self._is_open
            and not self._connection.in_transaction
            and not (self._main.is_untouched and (self._files.log_stands or not to_write))
        ):
            self._follow(to_write=to_write)
        if not self._is_open:
            require_same_store(self.path, self._known)
            self._open()
            self.generation += 1
        return self._connection

    def _ready_where_full(self, *, to_write: bool) -> apsw.Connection:
        """Return a connection that only reads, or one that writes where there is room again."""
        if not self._connection.in_transaction and (
            to_write or self._files.last_written() != self._files.written
        ):
            self._let_go()
            recognise(self.path)
            set_aside_foreign_log(self.path)
            self._open()
            self.generation += 1
        if to_write and self.only_reads:
            raise StoreFullError(self.path)
        return self._connection

    def _follow(self, *, to_write: bool) -> None:
        """Take note of a checkpoint, or let go of a file that is no longer the one that was open."""
        if not self._files.store_stands:
            self._leave(has_log=self._main.is_plausible)
        elif self._files.has_other_log:
            self._leave(has_log=True)
        elif not self._main.holds_the_store():
            self._leave(has_log=False)
        elif to_write and not self._files.log_stands:
            self._leave(has_log=True)

    def _leave(self, *, has_log: bool) -> None:
        """Let go of the file, once it has taken in its log; one that is not its own is kept aside."""
        if not self._readers.close(CLOSING_S):
            if not self._is_closed:
                self._readers.reopen()
            raise StoreBusyError(self.path)
        connection, files = self._connection, self._files
        # Closing would remove the log at the path by its name, whosever that is by now.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if not has_log:
            files.set_log_aside()
        elif not (files.store_stands and files.has_other_log):
            with suppress(apsw.Error):
                in_log, in_file = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if in_log == in_file and not files.store_stands:
                    files.remove_log()
        self._let_go()

    def _let_go(self) -> None:
        self._is_open = False
        self._readers.close(0)
        self._main.close()
        self._connection.close()  # the last, so that SQLite writes the log back

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement, which may write, and return its rows.

        Raises:
            StoreError: SQLite could not do it.
            IdTooLargeError: A number among the parameters is one that no row can have.
            InvalidInputError: A text among them is none that UTF-8 can hold.
        """
        with self._lock, translated(self.path):
            return _rows(self._ready().execute, sql, parameters)

    def query(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement that only reads, and return its rows; it waits for no writer.

        Inside a transaction of this thread it sees what that wrote, else what is committed.

        Raises:
            StoreError: SQLite could not do it, or the statement would write.
            IdTooLargeError: A number among the parameters is one that no row can have.
            InvalidInputError: A text among them is none that UTF-8 can hold.
        """
        with translated(self.path), ExitStack() as stack:
            if (own := self._own.connection) is not None:
                return _rows(own.execute, sql, parameters)
            if not self._lock.acquire(blocking=False):
                return _rows(self._reader(stack).execute, sql, parameters)
            stack.callback(self._lock.release)
            cursor = self._ready().cursor()
            cursor.exec_trace = _require_reading
            return _rows(cursor.execute, sql, parameters)

    def read_pieces(
        self, table: str, column: str, pieces: Iterable[tuple[int, int, int]]
    ) -> list[bytes]:
        """Return pieces of blobs, each given by its row, where it begins and how many bytes it has.

        Those of one row are read soonest one after another.

        Raises:
            StoreError: SQLite could not do it.
            ValueError: A blob ends before the piece begins.
        """
        found: list[bytes] = []
        with translated(self.path), ExitStack() as stack:
            connection, blob = self._own.connection or self._reader(stack), None
            for row, in_row in itertools.groupby(pieces, itemgetter(0)):
                if blob is None:
                    blob = connection.blob_open("main", table, column, row, False)
                    stack.callback(blob.close, True)
                else:
                    blob.reopen(row)
                for _, begin, length in in_row:
                    blob.seek(begin)
                    found.append(blob.read(length))
        return found

    def _reader(self, stack: ExitStack) -> apsw.Connection:
        """Return a connection that reads the file that stands at the path, until `stack` is closed."""
        while not self.only_reads:
            if (reader := self._readers.take()) is not None:
                stack.callback(self._readers.give_back, reader)
                return reader
            # Only who may write can let go of a file and open another.
            with self._lock:
                if not self.only_reads:
                    self._ready(to_write=True)
        stack.enter_context(self._lock)
        return self._ready()

    def _is_current(self) -> bool:
        """Whether the file that is open still stands at the path and holds the store."""
        if self._main.is_untouched:
            return True
        if not self._files.store_stands or self._files.has_other_log:
            return False
        # In the middle of a checkpoint of our own the log cannot tell of it yet.
        return (self._is_writing_back and self._main.is_plausible) or self._main.holds_the_store()

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> list[Row]:
        """Run one statement with each of `rows` and return what it returned for all of them.

        Raises:
            As `execute`.
        """
        with self._lock, translated(self.path):
            return _rows(self._ready().executemany, sql, rows)

    def get_fact(self, name: str) -> str | None:
        """Return what was noted of the store under a name."""
        rows = self.query("SELECT value FROM store_facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def put_fact(self, name: str, value: str | None) -> None:
        """Note something of the store, or with None take it away; inside a transaction."""
        if value is None:
            self.execute("DELETE FROM store_facts WHERE name = ?", (name,))
        else:
            facts = "INSERT OR REPLACE INTO store_facts (name, value) VALUES (?, ?)"
            self.execute(facts, (name, value))

    def revision(self) -> tuple[int, ...]:
        """Return what changes with each commit, and with each opening anew.

        Raises:
            StoreError: SQLite could not do it.
        """
        with translated(self.path), ExitStack() as stack:
            if self._own.connection is None:
                self._reader(stack)
                if not self.only_reads:
                    self._main.keep_up()
            return self.generation, self._main.count_commits()

    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return self._own.connection is not None and self._own.connection is self._connection

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block.

        A durable commit is on the disk when the block ends; one that is not survives the end of the
        process, but the last few may be lost with the power.

        Raises:
            StoreBusyError: Another process kept the write lock.
            StoreFullError: The disk is full.
            StoreGoneError: The store was moved or deleted.
            StoreReplacedError: Another store stands in its place.
            StoreOverwrittenError: Something else was written into the store.
        """
        with self._lock, translated(self.path):
            self._ready(to_write=True)
            if durable != self._durable:
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:  # passed over for all that time: one more turn
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                with self._own.using(self._connection):
                    yield
                # Else it would be lost with a file that nobody can reach any more.
                if not (self._files.store_stands and self._files.log_stands):
                    raise StoreGoneError(self.path)
                self._main.require_plausible()
                with self.writing_back():
                    self._connection.execute("COMMIT")
                if not (self.only_reads or self._connection.in_transaction):
                    self._main.keep_up()
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def writing_back(self) -> Iterator[None]:
        """Let others read during the block, in which this process writes its log back into the file."""
        self._is_writing_back = True
        try:
            yield
        finally:
            self._is_writing_back = False

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read inside be of one moment, however others write meanwhile."""
        with translated(self.path), ExitStack() as stack:
            if self._own.connection is not None:
                yield
                return
            reader = self._reader(stack)
            reader.execute("BEGIN")
            try:
                with self._own.using(reader):
                    yield
            finally:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Let a held write lock raise StoreBusyError at once, on entering or inside the block.

        That of another thread of this process counts too.
        """
        with translated(self.path), ExitStack() as stack:
            if not self._lock.acquire(blocking=False):
                raise StoreBusyError(self.path)
            stack.callback(self._lock.release)
            before, self._patience_ms = self._patience_ms, 0  # of one opened anew meanwhile too
            try:
                self._ready().set_busy_timeout(0)
                yield
            finally:
                self._patience_ms = before
                if self._is_open:
                    self._connection.set_busy_timeout(self._patience_ms)

    def empty_log(self) -> bool:
        """Write the log back into the file and empty it; False while somebody reads it for long.

        Raises:
            StoreError: SQLite could not do it.
        """
        with self._lock, translated(self.path):
            try:
                with self.writing_back():
                    self._ready().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
            return True

    def release_memory(self) -> None:
        """Give back the memory of what was read.

        Raises:
            StoreError: The store is gone.
        """
        with self._lock, translated(self.path):
            self._ready().execute("PRAGMA shrink_memory")
            self._readers.release()

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        with self._lock:
            if self._is_closed or not self._is_open:
                self._is_closed = True
                return
            self._is_closed = True
            self._readers.close(CLOSING_S)
            try:
                with translated(self.path):
                    if not (self._main.is_untouched and self._files.log_stands):
                        self._follow(to_write=True)
            except StoreError:  # what is in the log may be all that is left
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                if self._main.is_another_store:
                    self._files.set_log_aside()
            finally:
                if self._is_open:
                    self._let_go()


class ReadOnlyDatabase(Database):
    """A connection that changes nothing, neither the file nor the folder that it is in."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`.

        Raises:
            StoreGoneError: There is none that can be read.
            NotAStoreError: It is none of soulkeep's.
            StoreError: SQLite cannot read it.
        """
        self.path = path
        self.generation = 0
        self._lock = threading.RLock()
        self._own = _Own()
        try:
            recognise(path)
        except OSError as error:
            raise StoreGoneError(path) from error
        with translated(path):
            self._connection = open_to_read(path)
            load_vectors(self._connection)

    def _ready(self, *, to_write: bool = False) -> apsw.Connection:
        return self._connection

    def _reader(self, stack: ExitStack) -> apsw.Connection:
        stack.enter_context(self._lock)
        return self._connection

    def revision(self) -> tuple[int, ...]:
        """Return what changes with each commit of others."""
        with self._lock, translated(self.path):
            return (self._connection.pragma("data_version"),)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Refuse to write.

        Raises:
            StoreNotWritableError: In any case.
        """
        raise StoreNotWritableError(self.path, "it was opened to be read")
        yield

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self._connection.close()


def _require_reading(cursor: apsw.Cursor, sql: str, parameters: object) -> bool:
    if not cursor.is_readonly:
        raise apsw.ReadOnlyError(f"{sql!r} would write")
    return True


def _rows(run: Callable[..., Iterable[Row]], sql: str, parameters: object) -> list[Row]:
    try:
        return list(run(sql, parameters))
    except OverflowError as error:
        raise IdTooLargeError from error
    except UnicodeEncodeError as error:
        raise InvalidInputError("text", HALF_A_PAIR) from error
