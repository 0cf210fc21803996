"""The store's file on the disk: made, recognised, and whether it is still the one that is open.

The file under an open store may be moved, replaced, or written over in place. SQLite itself does not
notice: it goes on with the pages that it has read and those in its log. The fields of the first bytes
are those of https://www.sqlite.org/fileformat.html#the_database_header.
"""

import logging
import os
import shutil
import threading
import time
from contextlib import closing, suppress
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

_ANOTHER_STORE = "another store"

_LOOK_TIMEOUT_MS = 5_000
"""While another process makes a copy its own, nobody else can read it."""

_CHECKPOINT_LOOKS, _CHECKPOINT_LOOK_S = 60, 0.005
"""How often and in which steps a checkpoint is waited for, before all of the file is read."""

_Identity = tuple[int, int] | None
_Stamp = tuple[int, ...] | None

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


class MainFile:
    """What was last seen in the main file; in WAL mode nothing but a checkpoint changes it.

    Threads may share it: those that read and the one that writes both look whether the file stands.
    """

    def __init__(self, path: Path, connection: apsw.Connection, store_id: str | None) -> None:
        """Note what is in the file that `connection`, which nobody else uses, has open."""
        self.store_id = store_id
        self._path, self._connection = path, connection
        self._file = opened_raw(path)
        self._lock = threading.RLock()
        self._refused: _Stamp = None
        self._found = ""
        self._stamp: _Stamp = None
        self._note(self._look())

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has written to the file, or put another in its place, since the last look."""
        return self._look() == self._stamp

    @property
    def is_another_store(self) -> bool:
        """Whether a whole other store was found in it at the last look."""
        return self._found == _ANOTHER_STORE

    @property
    def is_plausible(self) -> bool:
        """Whether the first bytes of the file that is open may be what SQLite wrote, wherever it is."""
        with self._lock:
            return self._follows(read_header(self._file))

    def require_plausible(self) -> None:
        """Check the first bytes, as far as one can inside a transaction.

        Raises:
            StoreOverwrittenError: They are not what SQLite wrote.
        """
        with self._lock:
            if not self.is_untouched and not self.is_plausible:
                raise overwritten(self._path, self._describe())

    def keep_up(self) -> None:
        """Note how far the log is, and what a checkpoint wrote; call it often, outside transactions.

        The less is known to have happened in the log, the less a change of the file is explained by it.
        """
        with self._lock:
            log, stamp = self._log_state(), self._look()
            if stamp == self._stamp:
                self._log = log
            elif self._was_checkpointed(read_header(self._file)):
                self._note(stamp)

    def count_commits(self) -> int:
        """Return a number that is another after each commit of any connection."""
        with self._lock:
            return int(self._connection.pragma("data_version"))

    def holds_the_store(self) -> bool:
        """Whether the file goes on from what was seen; False where a whole copy of the store is in it.

        After a checkpoint that the log tells of, only the first bytes are read, else the whole file.

        Raises:
            StoreOverwrittenError: It is damaged, or no store at all.
            StoreReplacedError: It is another store.
        """
        with self._lock:
            stamp = self._look()
            if stamp == self._stamp:
                return True
            if stamp != self._refused:
                header = read_header(self._file)
                if self._is_explained(header) or self._is_continued(header):
                    self._note(stamp)
                    return True
                self._found = self._describe()
                if self._found == "damaged" and self._is_complete(header):
                    if self.store_id in (None, self._stored_id()):
                        return False
                    self._found = _ANOTHER_STORE
                self._refused = stamp
            if self.is_another_store:
                raise StoreReplacedError(self._path)
            raise overwritten(self._path, self._found)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()
            self._file.xClose()

    def _look(self) -> _Stamp:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - before each statement, and this takes half the time
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return self._stamp  # where nobody can say, it counts as untouched
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _note(self, stamp: _Stamp) -> None:
        # The stamp is older than what is read now: what comes in between shows at the next look.
        self._header, self._log = read_header(self._file), self._log_state()
        self._stamp, self._refused, self._found = stamp, None, ""

    def _log_state(self) -> tuple[bytes, int, int]:
        """Return how the log begins, other each time, its frames, and how many the main file has too."""
        begun = b""
        with suppress(FileNotFoundError), log_of(self._path).open("rb") as log:
            begun = log.read(24)
        return begun, *self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)

    def _describe(self) -> str:
        found = parse_header(read_header(self._file))
        return found if isinstance(found, str) else "damaged"

    def _follows(self, header: bytes) -> bool:
        """Whether first bytes are those that were seen, or later ones of a store in WAL mode."""
        if header == self._header:
            return True
        seen, now = parse_header(self._header), parse_header(header)
        if isinstance(seen, str) or isinstance(now, str) or not now.in_wal_mode:
            return False
        return now.change_counter >= seen.change_counter and now.page_size == seen.page_size

    def _is_explained(self, header: bytes) -> bool:
        """Whether there was a checkpoint; waits for one of another process that may be at work."""
        looks = _CHECKPOINT_LOOKS if self._follows(header) else 0
        while not self._was_checkpointed(read_header(self._file)):
            if not looks:
                return False
            looks -= 1
            time.sleep(_CHECKPOINT_LOOK_S)
        return True

    def _was_checkpointed(self, header: bytes) -> bool:
        """Whether the log tells of a checkpoint since then, and the file is as one leaves it."""
        now = parse_header(header)
        if isinstance(now, str) or not self._follows(header) or self._file.xFileSize() != now.file_size:
            return False
        begun, frames, written = self._log_state()
        if (begun, written) == self._log[::2] and frames >= self._log[1]:
            return False
        # A log begun anew no longer tells what was written back; a store that grew shows it.
        is_new = self._has_frame(written, now.page_size) if written else header != self._header
        return is_new and not self._is_anothers()

    def _has_frame(self, number: int, page_size: int) -> bool:
        """Whether the page in a frame of the log is in the file, as it is if written back last.

        https://www.sqlite.org/fileformat.html#the_write_ahead_log
        """
        with suppress(FileNotFoundError), log_of(self._path).open("rb") as log:
            log.seek(32 + (number - 1) * (24 + page_size))
            frame = log.read(24 + page_size)
            page = int.from_bytes(frame[:4])
            return page > 0 and frame[24:] == self._file.xRead(page_size, (page - 1) * page_size)
        return False

    def _is_continued(self, header: bytes) -> bool:
        """Whether file and log are whole together, as in a checkpoint or after one that was cut off."""
        now = parse_header(header)
        if isinstance(now, str) or not now.in_wal_mode or self._is_anothers():
            return False
        log_moved = self._log_state() != self._log
        if header == self._header and not log_moved:
            return self._is_whole("mode=ro", "quick_check")
        # Somebody may have gone on writing to what looks older than what was seen.
        goes_on = log_moved or self._follows(header)
        return goes_on and self._is_whole("mode=ro", "integrity_check")

    def _is_complete(self, header: bytes) -> bool:
        """Whether the file is a whole database without any log."""
        now = parse_header(header)
        return (
            isinstance(now, Header)
            and self._file.xFileSize() == now.file_size
            and self._is_whole("immutable=1", "quick_check")
        )

    def _is_whole(self, how: str, check: str) -> bool:
        try:
            with closing(self._opened(how)) as connection:
                return bool(connection.execute(f"PRAGMA {check}(1)").get == "ok")
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError):
            return False

    def _is_anothers(self) -> bool:
        return self.store_id is not None and self._stored_id() not in (None, self.store_id)

    def _stored_id(self) -> str | None:
        """Return the id of the store in the main file alone; None where it cannot be read."""
        try:
            with closing(self._opened("immutable=1")) as connection:
                return store_identity(connection)[0]
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError):
            return None

    def _opened(self, how: str) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"{self._path.as_uri()}?{how}", flags=flags)
        connection.set_busy_timeout(1000)
        return connection
