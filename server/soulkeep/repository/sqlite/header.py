"""The first bytes of a store's file, and what they say of it.

The fields are those of https://www.sqlite.org/fileformat.html#the_database_header.
"""

from pathlib import Path
from typing import NamedTuple

import apsw

from soulkeep.errors import StoreOverwrittenError

APPLICATION_ID = 0x534B4550
"""Marks the file as ours in SQLite's header: "SKEP" in ASCII."""

BACKUPS_FOLDER = "backups"
"""The folder of backups, beside the store."""

HEADER_SIZE = 100

_MAGIC = b"SQLite format 3\0"


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
