"""Writing the store's file anew without free pages, by way of a copy beside it.

SQLite's own VACUUM keeps its copy in the system's folder for temporary files, which may be shared, small
or on another disk. The copy made here holds nothing that was deleted; one that a killed process left is
removed when the store is next opened.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import apsw

from soulkeep.errors import StoreBusyError
from soulkeep.progress import tell
from soulkeep.repository.sqlite.connections import BUSY_TIMEOUT_S, translated
from soulkeep.repository.sqlite.database import Database

_ATTEMPTS = 10
_STEPS_BETWEEN_REPORTS = 20_000
"""SQLite's own steps, some ten milliseconds."""

_PAGES_AT_ONCE = 1_000


def rewrite(database: Database) -> None:
    """Write the file anew; outside transactions. Others cannot write meanwhile, and can read.

    It needs as much free space as the store takes, twice for a moment.

    Raises:
        StoreBusyError: Others keep writing.
        StoreFullError: The disk is full; the store is as it was.
    """
    for _ in range(_ATTEMPTS):
        if _rewritten(database):
            return
    raise StoreBusyError(database.path)


def remove_leftover(database: Database) -> None:
    """Remove the copy that a killed process left, unless one is being made."""
    copy = _copy_path(database.path)
    if copy.exists():
        with suppress(StoreBusyError), database.without_waiting(), database.transaction(durable=False):
            _remove(copy)


def _rewritten(database: Database) -> bool:
    """Write the file anew; False where somebody wrote between the copy and its taking the place."""
    with translated(database.path), ExitStack() as stack:
        reader, target = (stack.enter_context(_opened(database.path)) for _ in range(2))
        with database.transaction(durable=False):  # keeps others from writing
            copy = stack.enter_context(_copied(reader, _copy_path(database.path)))
            seen = reader.pragma("data_version")
            source = stack.enter_context(closing(apsw.Connection(str(copy))))
            backup = target.backup("main", source, "main")
            stack.callback(backup.close, force=True)
        backup.step(1)  # takes the write lock
        if reader.pragma("data_version") != seen:
            return False
        stack.enter_context(database.writing_back())
        while not backup.done:
            backup.step(_PAGES_AT_ONCE)
            tell("Putting it in place", 1 - backup.remaining / max(backup.page_count, 1))
    return True


@contextmanager
def _copied(reader: apsw.Connection, copy: Path) -> Iterator[Path]:
    """Give a copy of the store without anything that was deleted, gone after the block."""
    _remove(copy)
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        reader.set_progress_handler(_tell, _STEPS_BETWEEN_REPORTS)
        _tell()
        reader.execute("VACUUM INTO ?", (str(copy),))
        reader.set_progress_handler(None)
        yield copy
    finally:
        _remove(copy)


def _opened(path: Path) -> closing[apsw.Connection]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_TIMEOUT_S * 1000)
    connection.pragma("fullfsync", 1)
    connection.pragma("temp_store", "MEMORY")
    return closing(connection)


def _copy_path(store: Path) -> Path:
    return store.with_name(f".{store.name}.part")


def _remove(copy: Path) -> None:
    for suffix in ("", "-journal"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _tell() -> bool:
    tell("Writing the store anew")
    return False  # anything else would end the statement
