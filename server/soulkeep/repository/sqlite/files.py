"""The store's file on the disk: made, recognised, and whether it is still the one that is open.

The fields of its first bytes are those of https://www.sqlite.org/fileformat.html#the_database_header.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from soulkeep.disk import make_folder
from soulkeep.errors import (
    NotAStoreError,
    SourceError,
    StoreNotWritableError,
    StoreOverwrittenError,
    StoreReplacedError,
)
from soulkeep.models import BACKUPS_FOLDER

APPLICATION_ID = 0x534B4550
"""Marks the file as ours in SQLite's header: "SKEP" in ASCII."""

HEADER_SIZE = 100

_MAGIC = b"SQLite format 3\0"

_log = logging.getLogger(__name__)


class Header(NamedTuple):
    """How a database is written, and how often and far it was."""

    page_size: int
    in_wal_mode: bool
    change_counter: int
    file_size: int
    """How many bytes the file has when all is written that its log held."""
    application_id: int


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
    size = 65536 if size == 1 else size
    return Header(size, header[18:20] == b"\2\2", counter, pages * size, application_id)


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
        return parse_header(file.xRead(HEADER_SIZE, 0))
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


def create_file(path: Path) -> None:
    """Make the file, for its owner only, and its folder, unless they exist."""
    if os.path.islink(path):  # noqa: PTH114 - pathlib's fails in a folder that cannot be entered
        raise NotAStoreError(path, f"a link to {os.readlink(path)}")  # noqa: PTH115 - as it is written
    try:
        make_folder(path.parent, parents=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except IsADirectoryError:
        raise NotAStoreError(path, "a folder") from None
    except (FileExistsError, NotADirectoryError):
        link = next((place for place in path.parents if place.is_symlink() and not place.exists()), None)
        what = (
            f"{link} is a link that leads nowhere"
            if link
            else "a file stands where its folder should be"
        )
        raise StoreNotWritableError(path, what) from None
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


def store_identity(connection: apsw.Connection) -> tuple[str | None, int]:
    """Return a store's id, which its copies share, and its schema version."""
    version = connection.pragma("user_version")
    if not connection.table_exists("main", "store_facts"):
        return None, version
    ids = connection.execute("SELECT value FROM store_facts WHERE name = 'store_id'").get
    return ids, version


@contextmanager
def opened_foreign(path: Path) -> Iterator[Callable[[str], Iterator[tuple[Any, ...]]]]:
    """Open another program's database to read it; the block is handed what runs a query.

    Nothing is written there, and nothing that its schema may hold is run. Where a query meets what
    cannot be read, another one may find more.

    Raises:
        SourceError: It is a store of soulkeep, or cannot be read; from a query too.
    """
    with path.open("rb") as file:
        header = parse_header(file.read(HEADER_SIZE))
    if isinstance(header, Header) and header.application_id == APPLICATION_ID:
        raise SourceError(path, "it is a store of soulkeep", "use `soulkeep copy FROM TO`")
    address = f"{path.absolute().as_uri()}?mode=ro"
    if not log_of(path).exists():  # else SQLite would make one beside it, if it may
        address += "&immutable=1"

    said = "its database cannot be read ({})", "copy it again"

    def query(sql: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from connection.execute(sql)
        except apsw.Error as error:
            raise SourceError(path, said[0].format(error), said[1]) from error

    try:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        with closing(apsw.Connection(address, flags=flags)) as connection:
            connection.pragma("trusted_schema", "OFF")
            connection.pragma("query_only", "ON")
            connection.pragma("writable_schema", "ON")  # else a file that is cut off says nothing at all
            yield query
    except apsw.Error as error:
        raise SourceError(path, said[0].format(error), said[1]) from error


_Stamp = tuple[int, ...] | None

_LOG_HEADER = _FRAME_HEADER = 24
"""The bytes that tell a log from the one before it, salts included, and those before a page in it."""

_CHECKPOINT_LOOKS, _CHECKPOINT_LOOK_S = 60, 0.005
"""How often and in which steps a checkpoint is waited for, before all of the file is read."""


class _State(NamedTuple):
    """What shows a change of the file: its stamp, its first bytes, and how far its log is.

    A log is told by its own first bytes, other ones each time that it is begun anew, by its number of
    frames, and by how many of these are in the file too.
    """

    stamp: _Stamp
    header: bytes
    log: tuple[bytes, int, int]


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
        self.is_another_store = False
        """Whether a whole other store was found in it at the last look."""
        self._seen = _State(None, b"", (b"", 0, 0))
        self._seen = self._state()

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has written to the file, or put another in its place, since the last look."""
        return self._look() == self._seen.stamp

    @property
    def is_plausible(self) -> bool:
        """Whether the first bytes of the file that is open may be what SQLite wrote, wherever it is."""
        with self._lock:
            return self._follows(self._file.xRead(HEADER_SIZE, 0))

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
            state = self._state()
            if state.stamp == self._seen.stamp or self._was_checkpointed(state):
                self._seen = state

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
            state = self._state()
            if state.stamp == self._seen.stamp:
                return True
            if state.stamp != self._refused:
                if self._is_explained():
                    return True
                if self._is_continued(state.header):
                    self._seen = state  # what came since shows at the next look
                    return True
                self._found, self.is_another_store = self._describe(), False
                now = parse_header(state.header)
                is_full = isinstance(now, Header) and self._file.xFileSize() == now.file_size
                # It may be a whole database without any log.
                is_whole = is_full and self._is_whole("immutable=1", "quick_check")
                if self._found == "damaged" and is_whole:
                    if self.store_id in (None, self._stored_id()):
                        return False
                    self.is_another_store = True
                self._refused = state.stamp
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
            return self._seen.stamp  # where nobody can say, it counts as untouched
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _state(self) -> _State:
        while True:
            stamp, header, begun = self._look(), self._file.xRead(HEADER_SIZE, 0), b""
            with suppress(FileNotFoundError), log_of(self._path).open("rb") as log:
                begun = log.read(_LOG_HEADER)
            counts = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            if self._look() == stamp:
                return _State(stamp, header, (begun, *counts))

    def _describe(self) -> str:
        found = parse_header(self._file.xRead(HEADER_SIZE, 0))
        return found if isinstance(found, str) else "damaged"

    def _follows(self, header: bytes) -> bool:
        """Whether first bytes are those that were seen, or later ones of a store in WAL mode."""
        if header == self._seen.header:
            return True
        seen, now = parse_header(self._seen.header), parse_header(header)
        if isinstance(seen, str) or isinstance(now, str) or not now.in_wal_mode:
            return False
        return now.change_counter >= seen.change_counter and now.page_size == seen.page_size

    def _is_explained(self) -> bool:
        """Note a checkpoint, and say whether there was one; waits for one that may be at work."""
        for _ in range(_CHECKPOINT_LOOKS):
            state = self._state()
            if self._was_checkpointed(state):
                self._seen = state
                return True
            if not self._follows(state.header):
                return False
            time.sleep(_CHECKPOINT_LOOK_S)
        return False

    def _was_checkpointed(self, state: _State) -> bool:
        """Whether the log tells of a checkpoint since then, and the file is as one leaves it."""
        now = parse_header(state.header)
        if isinstance(now, str) or not self._follows(state.header):
            return False
        (begun, frames, written), (former, known, before) = state.log, self._seen.log
        has_moved = (begun, written) != (former, before) or frames < known
        if self._file.xFileSize() != now.file_size or not has_moved:
            return False
        if written:
            # What a later frame holds anew was left to the next checkpoint.
            later = {self._frame(n, begun, now.page_size)[:4] for n in range(written + 1, frames + 1)}
            while written and self._frame(written, begun, now.page_size)[:4] in later:
                written -= 1
            is_new = self._has_frame(written, begun, now.page_size)
        else:
            # A log begun anew no longer tells what was written back; a store that grew shows it, or
            # what is left of the former log behind it.
            while self._frame(known + 1, former, now.page_size):
                known += 1
            is_new = state.header != self._seen.header or self._has_frame(known, former, now.page_size)
        return is_new and not self._is_anothers()

    def _has_frame(self, number: int, log: bytes, page_size: int) -> bool:
        """Whether the page in a frame of a log is in the file, as it is if written back last."""
        frame = self._frame(number, log, page_size)
        page = int.from_bytes(frame[:4])
        return page > 0 and frame[_FRAME_HEADER:] == self._file.xRead(page_size, (page - 1) * page_size)

    def _frame(self, number: int, log: bytes, page_size: int) -> bytes:
        """Return a frame, from 1 on, of a log that begins so; empty where it is another's by now.

        https://www.sqlite.org/fileformat.html#the_write_ahead_log
        """
        with suppress(FileNotFoundError), log_of(self._path).open("rb") as file:
            file.seek(32 + max(number - 1, 0) * (_FRAME_HEADER + page_size))
            frame = file.read(_FRAME_HEADER + page_size)
            if number and frame[8:16] == log[16:24]:
                return frame
        return b""

    def _is_continued(self, header: bytes) -> bool:
        """Whether file and log are whole together, as in a checkpoint or after one that was cut off."""
        now = parse_header(header)
        if isinstance(now, str) or not now.in_wal_mode or self._is_anothers():
            return False
        log_moved = self._state().log != self._seen.log
        if header == self._seen.header and not log_moved:
            return self._is_whole("mode=ro", "quick_check")
        # Somebody may have gone on writing to what looks older than what was seen.
        goes_on = log_moved or self._follows(header)
        return goes_on and self._is_whole("mode=ro", "integrity_check")

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
