"""The one connection to the store's file: opening it, its transactions, and SQLite's errors as ours."""

import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import apsw

from soulkeep.errors import (
    NotAStoreError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.progress import tell

APPLICATION_ID = 0x534B4550
"""Marks the file as ours in SQLite's header: "SKEP" in ASCII."""

BUSY_TIMEOUT_S = 10
"""SQLite's waiting is unfair: a writer among several can be passed over for seconds."""

_HEADER = b"SQLite format 3\0"
_STEPS_BETWEEN_REPORTS = 20_000
"""SQLite's own steps, some ten milliseconds."""
_FULL_DISK_BYTES = 256 * 1024

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]


class Database:
    """One SQLite connection with sqlite-vec, shared by the threads of this process.

    A lock serialises the threads; several processes work on one file side by side through WAL.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, making it and its folder if they are missing.

        Raises:
            NotAStoreError: The path holds something else, which is left untouched.
            StoreNotWritableError: The file cannot be opened for writing.
            StoreError: SQLite refuses for another reason.
        """
        self.path = path
        self._lock = threading.RLock()
        create_file(path)
        _recognise(path)
        with translated(path), ExitStack() as on_failure:
            self._connection = apsw.Connection(str(path))
            on_failure.callback(self._connection.close)
            self._configure()
            on_failure.pop_all()

    def _configure(self) -> None:
        connection = self._connection
        connection.set_busy_timeout(BUSY_TIMEOUT_S * 1000)
        connection.enable_load_extension(True)
        connection.load_extension(_vec_library())
        connection.enable_load_extension(False)
        self._use_wal()
        for pragma in (
            "synchronous = NORMAL",
            "fullfsync = ON",  # on macOS a plain fsync does not reach the disk
            "foreign_keys = ON",
            "cache_size = -16384",  # 16 MiB
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if not connection.pragma("auto_vacuum"):
            # A file of an older soulkeep. Mapped, to SQLite's own maximum, it is read as quickly.
            connection.pragma("mmap_size", 2**31 - 2**16)
        self._durable = False

    def _use_wal(self) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while self._connection.pragma("journal_mode") != "wal":
            try:
                # Only a new file takes these two. A vector lies deep in a blob of 6 MB: with large pages
                # and the map of pages that auto_vacuum keeps it is reached in few steps, without the
                # whole store becoming resident through memory mapping.
                self._connection.pragma("page_size", 16384)
                self._connection.pragma("auto_vacuum", "INCREMENTAL")
                self._connection.pragma("journal_mode", "wal")
            except apsw.BusyError:
                # SQLite does not wait here by itself when several processes make the file at once.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement and return its rows.

        Raises:
            StoreError: SQLite could not do it.
        """
        with self._lock, translated(self.path):
            return list(self._connection.execute(sql, parameters))

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> list[Row]:
        """Run one statement with each of `rows` and return what it returned for all of them.

        Raises:
            StoreError: SQLite could not do it.
        """
        with self._lock, translated(self.path):
            return list(self._connection.executemany(sql, rows))

    @property
    def last_row_id(self) -> int:
        """The id that the last INSERT of this connection was given."""
        return self._connection.last_insert_rowid()

    def write_count(self) -> tuple[int, int]:
        """Return the numbers of commits by other connections and of rows changed by this one.

        Raises:
            StoreError: SQLite could not do it.
        """
        with self._lock, translated(self.path):
            return self._connection.pragma("data_version"), self._connection.total_changes()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction; waits for one of another thread to end."""
        with self._lock:
            return self._connection.in_transaction

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block.

        A durable commit is on the disk when the block ends; one that is not survives the end of the
        process, but the last few may be lost with the power.

        Raises:
            StoreBusyError: Another process kept the write lock.
            StoreFullError: The disk is full.
        """
        with self._lock, translated(self.path):
            if durable != self._durable:
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._begin()
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _begin(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            # Passed over for all that time: one more turn before the caller has to care.
            self._connection.execute("BEGIN IMMEDIATE")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read inside be of one moment, however other processes write meanwhile."""
        with self._lock, translated(self.path):
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Let a held write lock raise StoreBusyError at once inside the block."""
        with self._lock:
            self._connection.set_busy_timeout(0)
            try:
                yield
            finally:
                self._connection.set_busy_timeout(BUSY_TIMEOUT_S * 1000)

    def vacuum(self) -> None:
        """Write the file anew; outside transactions.

        Raises:
            StoreBusyError: Another process keeps writing.
            StoreFullError: The disk is full.
        """
        with self._lock, translated(self.path):
            # A second copy of the store belongs on the disk, not in memory.
            self._connection.pragma("temp_store", "DEFAULT")
            self._connection.set_progress_handler(_tell_of_vacuum, _STEPS_BETWEEN_REPORTS)
            try:
                self._connection.execute("VACUUM")
            finally:
                self._connection.set_progress_handler(None)
                self._connection.pragma("temp_store", "MEMORY")

    def empty_log(self) -> bool:
        """Write the log back into the file and empty it; False while another process reads it.

        Raises:
            StoreError: SQLite could not do it.
        """
        with self._lock, translated(self.path):
            try:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
            return True

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        with self._lock:
            self._connection.close()


def _tell_of_vacuum() -> bool:
    tell("Writing the store anew")
    return False  # anything else would end the statement


def _vec_library() -> str:
    # Importing sqlite_vec would import numpy, so its library is loaded by path.
    spec = find_spec("sqlite_vec")
    if spec is None or spec.origin is None:
        raise ImportError("the package sqlite-vec is not installed")
    return str(Path(spec.origin).with_name("vec0"))


def create_file(path: Path) -> None:
    """Make the file, for its owner only, and its folder, unless they exist."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except IsADirectoryError:
        raise NotAStoreError(path, "a folder") from None
    except (FileExistsError, NotADirectoryError):
        raise StoreNotWritableError(path, "a file stands where its folder should be") from None
    except OSError as error:
        if path.is_dir():
            raise NotAStoreError(path, "a folder") from None
        raise StoreNotWritableError(path, error.strerror or "refused") from error


def _recognise(path: Path) -> None:
    """Refuse a file that is not ours before SQLite touches it.

    The fields are those of https://www.sqlite.org/fileformat.html#the_database_header. A new store
    whose first transaction is still in the write-ahead log has one page and no application id.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        return
    if len(header) < 100 or not header.startswith(_HEADER):
        raise NotAStoreError(path, "no SQLite database")
    pages, application_id = (int.from_bytes(header[at : at + 4]) for at in (28, 68))
    if application_id != APPLICATION_ID and (application_id or pages > 1):
        raise NotAStoreError(path, "another program's SQLite database")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, so that no caller has to know SQLite."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusyError(path) from error
    except apsw.FullError as error:
        raise StoreFullError(path) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError) as error:
        raise StoreNotWritableError(path, str(error)) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreCorruptError(path, str(error)) from error
    except apsw.IOError as error:
        # A full disk shows as a failed write of one kind or another.
        if shutil.disk_usage(path.parent).free < _FULL_DISK_BYTES:
            raise StoreFullError(path) from error
        raise StoreError(path, f"reading or writing failed ({error})", "check the disk") from error
    except apsw.Error as error:
        raise StoreError(path, f"SQLite refused ({error})", "run `soulkeep doctor --repair`") from error
