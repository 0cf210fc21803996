"""Copies of a store: what an engine does for backups."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from soulkeep.repository import Repository


class Snapshot(Protocol):
    """A store as it is at one moment, however others go on writing, with its counts of rows."""

    @property
    def counts(self) -> Mapping[str, int]:
        """As `Repository.count_rows` has them."""

    def copy_to(self, folder: Path) -> None:
        """Write it into a folder, as files that are complete."""


class Copies(Protocol):
    """Copies of a store, as files in a folder, and such a copy in its place; the store need not be open.

    An engine whose stores are copied by its own tools refuses with a StoreError that names them.
    """

    @property
    def place(self) -> str:
        """Where the store is, as `Repository.place` has it."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Hold on to what is committed now during the block; others can write meanwhile.

        Raises:
            StoreCorruptError: The store is damaged.
        """

    def examine(self, folder: Path) -> tuple[int, dict[str, int]]:
        """Return the schema version and the counts of rows of a copy, having read all of it.

        Raises:
            BackupDamagedError: It is not whole, or no copy.
            SchemaTooNewError: A later soulkeep wrote it.
        """

    def opened(self, folder: Path) -> AbstractContextManager[Repository]:
        """Open a copy to change it; after the block its files are complete again."""

    def is_there(self) -> bool:
        """Whether there is something that may be a store, damaged or not."""

    def keep_files(self, folder: Path) -> bool:
        """Put what is in the place of a store that cannot be read into a folder; False for nothing."""

    def begin_anew(self) -> None:
        """Make an empty store in the place of whatever is there."""

    def replacing(self, folder: Path, *, continuing: bool) -> AbstractContextManager[Repository]:
        """Keep others from writing during the block, then put a copy in the store's place, for all.

        The block is handed the copy, open. When an error leaves it, the store stays as it was. If
        `continuing`, ids go on where the present store ends.

        Raises:
            StoreBusyError: Another process kept on writing.
        """
