"""A store that can only be read: on a full or a read-only disk, or in somebody else's folder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from soulkeep.errors import StoreGoneError, StoreNotWritableError
from soulkeep.repository.sqlite.connection import Database
from soulkeep.repository.sqlite.extension import load_vectors
from soulkeep.repository.sqlite.files import recognise
from soulkeep.repository.sqlite.readers import open_to_read
from soulkeep.repository.sqlite.refusals import translated


class ReadOnlyDatabase(Database):
    """A connection that changes nothing, neither the file nor the folder that it is in."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`.

        Raises:
            StoreGoneError: There is none that can be read.
            NotAStoreError: It is none of soulkeep's.
            StoreError: SQLite cannot read it.
        """
        self.path = path
        self.generation = 0
        self._lock = threading.RLock()
        try:
            recognise(path)
        except OSError as error:
            raise StoreGoneError(path) from error
        with translated(path):
            self._connection = open_to_read(path)
            load_vectors(self._connection)

    def _ready(self, *, to_write: bool = False) -> apsw.Connection:
        return self._connection

    def _keep_up(self) -> None:
        """Nothing of this file changes."""

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Refuse to write.

        Raises:
            StoreNotWritableError: In any case.
        """
        raise StoreNotWritableError(self.path, "it was opened to be read")
        yield

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self._connection.close()
