"""Connections as they are opened, the files that stood there then, and SQLite's errors as ours."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import apsw

from soulkeep.errors import (
    NotAStoreError,
    OwnerGoneError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreNotWritableError,
    StoreReplacedError,
)
from soulkeep.repository import UnrecordedChangeError
from soulkeep.repository.sqlite.files import (
    Header,
    log_of,
    overwritten,
    recognise,
    set_log_aside,
    size_of,
    store_identity,
    stored_header,
)

BUSY_TIMEOUT_S = 10
"""SQLite's waiting is unfair: a writer among several can be passed over for seconds."""

_LOOK_TIMEOUT_MS = 5_000
"""While another process makes a copy its own, nobody else can read it."""

READERS = 4
"""How many threads of a process read a store in the same moment, each over a connection of its own."""

_READ_CACHE_KIB = 4096
"""The pages that each of those keeps, beside those that the system keeps of the file."""

_FULL_DISK_BYTES = 256 * 1024


def is_for_want_of_room(error: apsw.Error, path: Path) -> bool:
    """Whether it failed since the disk is full, which shows as a failed write of one kind or another."""
    if not isinstance(error, apsw.IOError):
        return isinstance(error, apsw.FullError)
    try:
        return shutil.disk_usage(path.parent).free < _FULL_DISK_BYTES
    except OSError:  # the folder itself is gone
        return False


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, so that no caller has to know SQLite."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusyError(path) from error
    except (apsw.FullError, apsw.IOError) as error:
        if is_for_want_of_room(error, path):
            raise StoreFullError(path) from error
        raise StoreError(path, f"reading or writing failed ({error})", "check the disk") from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError) as error:
        raise StoreNotWritableError(path, str(error)) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreCorruptError(path, str(error)) from error
    except apsw.Error as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: apsw.Error) -> Exception:
    if str(error).endswith(UNRECORDED):
        return UnrecordedChangeError(str(error))
    if str(error).startswith("FOREIGN KEY"):
        return OwnerGoneError(path)
    return StoreError(path, f"SQLite refused ({error})", "run `soulkeep doctor --repair`")


UNRECORDED = "written outside a recording"
"""How the refusal of a trigger ends: see `changes`."""


def load_vectors(connection: apsw.Connection) -> None:
    """Load sqlite-vec into a connection."""
    # Importing sqlite_vec would import numpy, so its library is loaded by path.
    spec = find_spec("sqlite_vec")
    if spec is None or spec.origin is None:
        raise ImportError("the package sqlite-vec is not installed")
    connection.enable_load_extension(True)
    connection.load_extension(str(Path(spec.origin).with_name("vec0")))
    connection.enable_load_extension(False)


def open_to_write(path: Path, patience_ms: int) -> apsw.Connection:
    """Open a store's file to write and read it; other processes are waited for as long as that.

    Raises:
        apsw.Error: SQLite cannot open it.
    """
    with ExitStack() as on_failure:
        connection = apsw.Connection(str(path))
        on_failure.callback(connection.close)
        connection.set_busy_timeout(patience_ms)
        load_vectors(connection)
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while connection.pragma("journal_mode") != "wal":
            try:
                # Only a new file takes these two. A vector lies deep in a blob of 6 MB: large pages and
                # the map of pages that auto_vacuum keeps reach it in few steps, without memory mapping.
                connection.pragma("page_size", 16384)
                connection.pragma("auto_vacuum", "INCREMENTAL")
                connection.pragma("journal_mode", "wal")
            except apsw.BusyError:
                # SQLite does not wait here by itself when several processes make the file at once.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        for pragma in (
            "synchronous = NORMAL",
            "fullfsync = ON",  # on macOS a plain fsync does not reach the disk
            "foreign_keys = ON",
            "cache_size = -16384",  # 16 MiB
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _map_pages(connection)
        connection.execute("SELECT 1 FROM sqlite_schema")  # opens the log
        on_failure.pop_all()
    return connection


def _map_pages(connection: apsw.Connection) -> None:
    if not connection.pragma("auto_vacuum"):
        # A file of an older soulkeep. Mapped, to SQLite's own maximum, it is read as quickly.
        connection.pragma("mmap_size", 2**31 - 2**16)


_Identity = tuple[int, int] | None


class OpenFiles:
    """Which files stood at a store's path, and beside it as its log, when a connection opened them.

    Where the system does not say which file stands at a path, it counts as the one that was opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._log_path = str(path), f"{path}-wal"
        self._store, self._log = _identity(self._path, None), _identity(self._log_path, None)
        self.written = self.last_written()

    @property
    def store_stands(self) -> bool:
        """Whether the file at the path is still the one that is open."""
        return self._store == _identity(self._path, self._store)

    @property
    def log_stands(self) -> bool:
        """Whether the log beside it is."""
        return self._log == _identity(self._log_path, self._log)

    @property
    def has_other_log(self) -> bool:
        """Whether another log stands beside it, into which somebody may have written already."""
        return _identity(self._log_path, self._log) not in (None, self._log)

    def last_written(self) -> list[tuple[int, int]]:
        """Return what is another once somebody wrote into the store or its log."""
        status = [Path(path).stat() for path in (self._path, self._log_path) if os.path.lexists(path)]
        return [(each.st_mtime_ns, each.st_size) for each in status]

    def set_log_aside(self) -> None:
        """Keep the log that is open where SQLite does not apply it to what came in the store's place."""
        if self.log_stands and size_of(log_of(Path(self._path))):
            set_log_aside(Path(self._path))

    def remove_log(self) -> None:
        """Remove the log that is open; SQLite would apply it to whatever comes in the store's place."""
        if self.log_stands:
            for suffix in ("-wal", "-shm"):
                Path(self._path + suffix).unlink(missing_ok=True)


def _identity(path: str, unknown: _Identity) -> _Identity:
    try:
        status = os.stat(path)  # noqa: PTH116 - before each statement, and this takes half the time
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return unknown
    return status.st_dev, status.st_ino


def set_aside_foreign_log(path: Path) -> None:
    """Set the log aside that a store has beside it which was made without one, as backups are.

    SQLite would write what is in it into the store.
    """
    seen = _identity(str(log_of(path)), None)  # before the header: who makes a store makes that first
    if seen is None or not size_of(log_of(path)):
        return
    found = stored_header(path)
    is_backup = isinstance(found, Header) and not found.in_wal_mode
    if is_backup and seen == _identity(str(log_of(path)), None):
        set_log_aside(path)


def require_same_store(path: Path, known: tuple[str | None, int]) -> None:
    """Check that the file at the path is the store of this id and schema version, or a copy of it.

    Raises:
        StoreGoneError: There is none.
        StoreNotWritableError: It cannot be opened.
        StoreReplacedError: It is another store.
        NotAStoreError: It is none at all.
    """
    try:
        recognise(path)
    except IsADirectoryError:
        raise NotAStoreError(path, "a folder") from None
    except (FileNotFoundError, NotADirectoryError):
        raise StoreGoneError(path) from None
    except OSError as error:
        raise StoreNotWritableError(path, error.strerror or "refused") from error
    set_aside_foreign_log(path)
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.set_busy_timeout(_LOOK_TIMEOUT_MS)
        if store_identity(connection) != known:
            raise StoreReplacedError(path)


@dataclass(eq=False)
class Readers:
    """Connections that read beside the one that writes, each for one thread at a time.

    They are opened when there is none free, and see what is committed, while the files stand at the path
    and `_is_current` says that they hold the store. None keeps a moment of it between two uses, so the
    log can be written back.
    """

    _path: Path
    _files: OpenFiles
    _is_current: Callable[[], bool]
    _idle: list[apsw.Connection] = field(default_factory=list)
    _used: int = 0
    _is_closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self) -> apsw.Connection | None:
        """Give a connection until `give_back`; None after `close`, or where the file is not current.

        While `READERS` are in use it waits for one of them.

        Raises:
            apsw.Error: SQLite cannot open one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._used < READERS)
            self._used += 1
            connection = self._idle.pop() if self._idle else None
        usable = None
        try:
            if not self._is_closed and self._is_current():
                usable = connection = connection or self._opened()
        finally:
            if usable is None:
                self.give_back(connection)
        return usable

    def give_back(self, connection: apsw.Connection | None) -> None:
        """Let another thread have a connection that was taken."""
        with self._changed:
            self._used -= 1
            if connection is not None:
                self._idle.append(connection)
            if self._is_closed:
                self.release()
            self._changed.notify_all()

    def _opened(self) -> apsw.Connection | None:
        # SQLite takes the log at the path for that of the file, and would share the index of another.
        if not self._files.log_stands:
            return None
        connection = open_beside(self._path)
        load_vectors(connection)
        if self._files.store_stands and self._files.log_stands:
            return connection
        connection.close()
        return None

    def release(self) -> None:
        """Close the connections that nobody uses."""
        with self._changed:  # its lock may be held already
            while self._idle:
                self._idle.pop().close()

    def close(self, patience_s: float) -> bool:
        """Close all and give no more; return whether none is in use any more after so many seconds.

        Those that are then still in use are closed when they come back.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            is_done = self._changed.wait_for(lambda: not self._used, patience_s)
            self.release()
            return is_done

    def reopen(self) -> None:
        """Give connections again."""
        with self._changed:
            self._is_closed = False


def open_alone(path: Path, *pragmas: str) -> apsw.Connection:
    """Open a connection that reads and writes a store for one piece of work, and configure it.

    Raises:
        StoreOverwrittenError: The file is empty, and there is a log of the store that it was.
        apsw.Error: SQLite cannot open it.
    """
    if not size_of(path) and size_of(log_of(path)):
        raise overwritten(path, "empty")  # SQLite would delete the log
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_TIMEOUT_S * 1000)
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def open_beside(path: Path, *, keeps_pages: bool = True) -> apsw.Connection:
    """Open a connection that reads a store beside the one that writes.

    One that does not keep pages takes a quarter of the memory.

    Raises:
        apsw.Error: SQLite cannot open it.
    """
    waiting = f"busy_timeout = {BUSY_TIMEOUT_S * 1000}"
    # SQLite takes room for twenty pages at first, and gives it back where so few are wanted.
    caches = [f"cache_size = -{_READ_CACHE_KIB}"] if keeps_pages else ["cache_size = 2", "shrink_memory"]
    connection = _open(path, "mode=ro", waiting, *caches)
    _map_pages(connection)
    return connection


def open_to_read(path: Path) -> apsw.Connection:
    """Open a store's file without writing into it or its folder.

    Raises:
        apsw.Error: SQLite cannot read it without.
    """
    # Without anything in its log nobody has written, and SQLite need not make one to read the file.
    header = stored_header(path)
    if not (isinstance(header, Header) and header.in_wal_mode and size_of(log_of(path))):
        return _open(path, "mode=ro&immutable=1")
    try:
        return _open(path, "mode=ro")
    except (apsw.IOError, apsw.FullError):
        # A process left its log, and there is no room for the index that processes share. Alone, one
        # keeps it in memory.
        return _open(path, "mode=rw", "locking_mode = EXCLUSIVE", "query_only = ON")


def _open(path: Path, how: str, *pragmas: str) -> apsw.Connection:
    """Open a connection and configure it; what cannot be read fails here."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI  # `how` takes away from these
    with ExitStack() as on_failure:
        connection = apsw.Connection(f"{path.as_uri()}?{how}", flags=flags)
        on_failure.callback(connection.close)
        # Closing would remove the log at the path by its name, whosever that is by now.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for pragma in ("temp_store = MEMORY", *pragmas):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("SELECT 1 FROM sqlite_schema")
        on_failure.pop_all()
    return connection
