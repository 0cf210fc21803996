"""Whether the file under an open store still holds what SQLite wrote, or was written over in place.

SQLite itself does not notice: it goes on with the pages that it has read and those in its log.
"""

import os
import time
from contextlib import closing, suppress
from pathlib import Path

import apsw

from soulkeep.errors import StoreReplacedError
from soulkeep.repository.sqlite.files import store_identity
from soulkeep.repository.sqlite.header import (
    Header,
    log_of,
    opened_raw,
    overwritten,
    parse_header,
    read_header,
)

_Stamp = tuple[int, ...] | None

_ANOTHER_STORE = "another store"

_CHECKPOINT_LOOKS, _CHECKPOINT_LOOK_S = 10, 0.03
"""How often and in which steps a checkpoint is waited for, before all of the file is read."""


class MainFile:
    """What was last seen in the main file; in WAL mode nothing but a checkpoint changes it."""

    def __init__(self, path: Path, connection: apsw.Connection, store_id: str | None) -> None:
        """Note what is in the file that `connection` has open, outside transactions."""
        self.store_id = store_id
        self._path, self._connection = path, connection
        self._file = opened_raw(path)
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
        return self._follows(read_header(self._file))

    def require_plausible(self) -> None:
        """Check the first bytes, as far as one can inside a transaction.

        Raises:
            StoreOverwrittenError: They are not what SQLite wrote.
        """
        if not self.is_untouched and not self.is_plausible:
            raise overwritten(self._path, self._describe())

    def keep_up(self) -> None:
        """Note how far the log is, and what a checkpoint wrote; call it often, outside transactions.

        The less is known to have happened in the log, the less a change of the file is explained by it.
        """
        log, stamp = self._log_state(), self._look()
        if stamp == self._stamp:
            self._log = log
        elif self._was_checkpointed(read_header(self._file)):
            self._note(stamp)

    def holds_the_store(self) -> bool:
        """Whether the file goes on from what was seen; False where a whole copy of the store is in it.

        After a checkpoint that the log tells of, only the first bytes are read, else the whole file.

        Raises:
            StoreOverwrittenError: It is damaged, or no store at all.
            StoreReplacedError: It is another store.
        """
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

    def _log_state(self) -> tuple[int, int]:
        """Return how many frames the log has, and how many of them are in the main file too."""
        return self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)

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
        frames, written = self._log_state()
        if written == self._log[1] and frames >= self._log[0]:
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
