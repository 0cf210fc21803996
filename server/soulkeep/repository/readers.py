"""Connections that only read: on a full or a read-only disk, or in somebody else's folder."""

from contextlib import ExitStack
from pathlib import Path

import apsw


def open_to_read(path: Path) -> apsw.Connection:
    """Open a store's file without writing into it or its folder.

    Raises:
        apsw.Error: SQLite cannot read it without.
    """
    # Without anything in a log nobody has written, and SQLite need not make one to read the file.
    if not size_of(path.with_name(f"{path.name}-wal")):
        return _open(path, "mode=ro&immutable=1")
    try:
        return _open(path, "mode=ro")
    except (apsw.IOError, apsw.FullError):
        # A process left its log, and there is no room for the index that processes share. Alone, one
        # keeps it in memory.
        return _open(path, "mode=rw", "locking_mode = EXCLUSIVE", "query_only = ON")


def _open(path: Path, how: str, *pragmas: str) -> apsw.Connection:
    with ExitStack() as on_failure:
        connection = apsw.Connection(
            f"{path.as_uri()}?{how}", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        )
        on_failure.callback(connection.close)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for pragma in (*pragmas, "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("SELECT 1 FROM sqlite_schema")  # what cannot be read fails here
        on_failure.pop_all()
    return connection


def size_of(path: Path) -> int:
    """Return how many bytes a file has; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
