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


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL_DISK_BYTES
    except OSError:  # the folder itself is gone
        return False


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, so that no caller has to know SQLite."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusyError(path) from error
    except apsw.FullError as error:
        raise StoreFullError(path) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError) as error:
        raise StoreNotWritableError(path, str(error)) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreCorruptError(path, str(error)) from error
    except apsw.IOError as error:
        # A full disk shows as a failed write of one kind or another.
        if _is_full(path.parent):
            raise StoreFullError(path) from error
        raise StoreError(path, f"reading or writing failed ({error})", "check the disk") from error
    except apsw.Error as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: apsw.Error) -> StoreError:
    if str(error).startswith("FOREIGN KEY"):
        return OwnerGoneError(path)
    return StoreError(path, f"SQLite refused ({error})", "run `soulkeep doctor --repair`")
