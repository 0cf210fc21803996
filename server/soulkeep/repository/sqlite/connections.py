"""Connections as they are opened: with sqlite-vec, and SQLite's errors as ours."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import apsw

from soulkeep.errors import (
    OwnerGoneError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.repository.sqlite.files import Header, log_of, size_of, stored_header

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


def _refused(path: Path, error: apsw.Error) -> StoreError:
    if str(error).startswith("FOREIGN KEY"):
        return OwnerGoneError(path)
    return StoreError(path, f"SQLite refused ({error})", "run `soulkeep doctor --repair`")


def load_vectors(connection: apsw.Connection) -> None:
    """Load sqlite-vec into a connection."""
    connection.enable_load_extension(True)
    connection.load_extension(_vec_library())
    connection.enable_load_extension(False)


def _vec_library() -> str:
    # Importing sqlite_vec would import numpy, so its library is loaded by path.
    spec = find_spec("sqlite_vec")
    if spec is None or spec.origin is None:
        raise ImportError("the package sqlite-vec is not installed")
    return str(Path(spec.origin).with_name("vec0"))


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
