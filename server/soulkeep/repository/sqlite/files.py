"""The store's file on the disk: made, recognised, and whether it is still the one that is open.

The fields of its first bytes are those of https://www.sqlite.org/fileformat.html#the_database_header.
"""

import logging
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from soulkeep.disk import make_folder
from soulkeep.errors import (
    NotAStoreError,
    StoreGoneError,
    StoreNotWritableError,
    StoreOverwrittenError,
    StoreReplacedError,
)
from soulkeep.models import BACKUPS_FOLDER

APPLICATION_ID = 0x534B4550
"""Marks the file as ours in SQLite's header: "SKEP" in ASCII."""

HEADER_SIZE = 100

_MAGIC = b"SQLite format 3\0"

_LOOK_TIMEOUT_MS = 5_000
"""While another process makes a copy its own, nobody else can read it."""

_Identity = tuple[int, int] | None

_log = logging.getLogger(__name__)


class Header(NamedTuple):
    """How a database is written, and how often and far it was."""

    page_size: int
    in_wal_mode: bool
    change_counter: int
    pages: int
    application_id: int

    @property
    def file_size(self) -> int:
        """How many bytes the file has when all is written that its log held."""
        return self.pages * self.page_size


def parse_header(header: bytes) -> Header | str:
    """Return what the first bytes of a file say, or what it is where they are not a store's.

    A new store whose first transaction is still in the write-ahead log has one page and no
    application id.
    """
    if not header:
        return "empty"
    if len(header) < HEADER_SIZE or not header.startswith(_MAGIC):
        return "no SQLite database"
    size, counter, pages, application_id = (
        int.from_bytes(header[start:end]) for start, end in ((16, 18), (24, 28), (28, 32), (68, 72))
    )
    if application_id != APPLICATION_ID and (application_id or pages > 1):
        return "another program's SQLite database"
    return Header(65536 if size == 1 else size, header[18:20] == b"\2\2", counter, pages, application_id)


def read_header(file: apsw.VFSFile) -> bytes:
    """Return the first bytes of a file."""
    return file.xRead(HEADER_SIZE, 0)


def opened_raw(path: Path) -> apsw.VFSFile:
    """Open a store's file to read its bytes, whatever its log holds.

    By way of SQLite: to close a descriptor of our own would drop the locks that SQLite holds on it.
    """
    return apsw.VFSFile("", str(path), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])


def stored_header(path: Path) -> Header | str:
    """Return what the first bytes of a file say, as `parse_header` does.

    Raises:
        apsw.CantOpenError: There is none that can be read.
    """
    file = opened_raw(path)
    try:
        return parse_header(read_header(file))
    finally:
        file.xClose()


def size_of(path: Path) -> int:
    """Return the size of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def log_of(store: Path) -> Path:
    """Return the path of a store's write-ahead log."""
    return store.with_name(f"{store.name}-wal")


def newest_backup(store: Path) -> str | None:
    """Return the id of the newest backup beside a store; their names begin with their dates."""
    manifests = (store.parent / BACKUPS_FOLDER).glob("[!.]*/manifest.json")
    return max((path.parent.name for path in manifests), default=None)


def overwritten(store: Path, found: str) -> StoreOverwrittenError:
    """Return the error that says what is in a store's place, and what there is to bring it back."""
    log = log_of(store)
    return StoreOverwrittenError(store, found, log if size_of(log) else None, newest_backup(store))


class OpenFiles:
    """Which files stood at a store's path, and beside it as its log, when a connection opened them.

    Where the system does not say which file stands at a path, it counts as the one that was opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._log_path = str(path), f"{path}-wal"
        self._store, self._log = _identity(self._path, None), _identity(self._log_path, None)
        self._written = self._last_written()

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

    @property
    def were_written(self) -> bool:
        """Whether somebody wrote into the store or its log since."""
        return self._written != self._last_written()

    def _last_written(self) -> list[tuple[int, int]]:
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


def create_file(path: Path) -> None:
    """Make the file, for its owner only, and its folder, unless they exist."""
    try:
        make_folder(path.parent, parents=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except IsADirectoryError:
        raise NotAStoreError(path, "a folder") from None
    except (FileExistsError, NotADirectoryError):
        raise StoreNotWritableError(path, "a file stands where its folder should be") from None
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112 - pathlib's fails in a folder that cannot be entered
            raise NotAStoreError(path, "a folder") from None
        raise StoreNotWritableError(path, error.strerror or "refused") from error


def recognise(path: Path) -> None:
    """Refuse a file that is not ours before SQLite touches it.

    Raises:
        NotAStoreError: It is something else.
        StoreOverwrittenError: So it is, and there is a log or a backup of a store that was there.
    """
    log_size = size_of(log_of(path))
    with path.open("rb") as file:
        found = parse_header(file.read(HEADER_SIZE))
    # SQLite would delete the log of an empty file.
    if isinstance(found, str) and (log_size or (found != "empty" and newest_backup(path))):
        raise overwritten(path, found)
    if isinstance(found, str) and found != "empty":
        raise NotAStoreError(path, found)


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


def set_log_aside(store: Path) -> None:
    """Move the log of what was in a store before to a folder among the backups, where it is kept.

    Raises:
        StoreNotWritableError: It cannot be moved.
    """
    backups, number = store.parent / BACKUPS_FOLDER, 1
    while (folder := backups / f"log-of-overwritten-store-{number}").exists():
        number += 1
    log = log_of(store)
    try:
        make_folder(folder, parents=True)
        shutil.move(log, folder / log.name)
    except OSError as error:
        if not log.exists():  # another server, which noticed it too, was quicker
            return
        raise StoreNotWritableError(log, error.strerror or "refused") from error
    Path(f"{store}-shm").unlink(missing_ok=True)
    _log.warning(
        "%s was written over; changes of the former store that were not in its file yet are kept in %s",
        store,
        folder,
    )


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


def store_identity(connection: apsw.Connection) -> tuple[str | None, int]:
    """Return a store's id, which its copies share, and its schema version."""
    version = connection.pragma("user_version")
    if not connection.table_exists("main", "store_facts"):
        return None, version
    ids = connection.execute("SELECT value FROM store_facts WHERE name = 'store_id'").get
    return ids, version
