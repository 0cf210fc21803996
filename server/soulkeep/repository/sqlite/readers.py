"""Connections that only read: on a full or a read-only disk, or in somebody else's folder."""

from contextlib import ExitStack
from pathlib import Path

import apsw

from soulkeep.repository.sqlite.header import Header, log_of, size_of, stored_header


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
