"""SQLite's errors as ours."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
