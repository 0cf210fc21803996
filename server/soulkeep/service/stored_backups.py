"""Backups of a home that its database keeps, so that every process of a server has them all.

They hold the same as those in folders, and are made, named, bounded and found alike.
"""

from collections.abc import Callable, Collection
from functools import partial
from operator import attrgetter

from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.models import Backup, Clock, Restored, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository, StoredCopies
from soulkeep.service.backups import LOCK_TIMEOUT_S, Backups, new_id, surplus
from soulkeep.service.callers import Sessions


class StoredBackups(Backups):
    """Makes, lists and restores the backups of one home, whichever process made them."""

    in_store = True

    def __init__(self, copies: StoredCopies, documents: Documents, clock: Clock, keep: int) -> None:
        """Keep so many backups of a home, of its store and its documents."""
        self._stored = copies
        self._documents, self._days = documents, Days(documents.timezone)
        self._clock = clock
        self._keep = keep
        self._exclusive = partial(copies.exclusive, LOCK_TIMEOUT_S)

    def list_backups(self) -> list[Backup]:
        """Return the backups, newest first."""
        return sorted(self._stored.list_copies(), key=attrgetter("made_at", "id"), reverse=True)

    def list_others(self, but: Collection[str] = ()) -> list[str]:
        """Return the ids of all backups but for some."""
        return sorted({backup.id for backup in self.list_backups()} - {*but})

    def drop_leftovers(self) -> None:
        """Delete what a killed process left of its work on them.

        Raises:
            StoreError: Another process is at work on them, or the database cannot do it.
        """
        with self._exclusive():
            self._stored.drop_leftovers()

    def size(self) -> int:
        """Return how many bytes all backups take."""
        return sum(backup.size for backup in self.list_backups())

    def rewrite(self, backup_id: str, change: Callable[[Repository, dict[str, bytes]], None]) -> str:
        """Change what a backup holds, under its id, which is returned.

        Raises:
            BackupDamagedError: It is not what was written.
            StoreError: It cannot be written; the backup stays as it was.
        """
        with self._exclusive():
            tell("Writing a backup anew")
            with self._stored.opened(backup_id) as (store, documents):
                change(store, documents)
        return backup_id

    def restore(self, wanted: str) -> Restored:
        """Set the store and the documents back to a backup, having backed up what they hold now.

        Others may have the store open: they see the restored one at their next call. All of it is
        changed in one transaction.

        Raises:
            BackupNotFoundError: There is none with this id, and none that is not after this moment.
            BackupDamagedError: It is not what was written.
            SchemaTooNewError: A later soulkeep made it.
            StoreError: The store cannot be replaced.
        """
        backup = self.find(wanted)
        with self._exclusive():
            tell("Copying the backup")
            with self._stored.replacing(backup.id) as (staged, documents):
                former = self._make("before-restore", automatic=True)
                sessions = Sessions(staged, self._clock)
                with staged.transaction():
                    sessions.audit(sessions.current(), "store.restored", {"backup": backup.id})
                self._documents.replace_all(documents, self._documents.read_all()[0], ())
            self._drop_surplus(backup.id)
        return Restored(backup, former, None)

    def _make(self, label: str, *, automatic: bool, is_locked: bool = False) -> Backup:
        now = timestamp(self._clock())
        backup_id = new_id(now, label, self.list_others().__contains__)
        made = Backup(backup_id, now, label, automatic, 0, {})
        return self._stored.add(made, lambda: self._documents.read_all()[0])

    def _drop_surplus(self, spare: str | None) -> None:
        for backup in surplus(self.list_backups(), self._keep, spare):
            self._stored.drop(backup.id)
