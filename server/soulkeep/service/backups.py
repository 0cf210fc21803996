"""Backups of the store and the documents together, and going back to one."""

import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path

from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.documents.files import locked
from soulkeep.errors import (
    BackupDamagedError,
    BackupNotFoundError,
    DocumentError,
    InvalidInputError,
    NotMigratedError,
    StoreCorruptError,
    StoreError,
)
from soulkeep.models import BACKUPS_FOLDER, Backup, Clock, Restored, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Copies, Repository
from soulkeep.service.backup_folders import (
    MANIFEST,
    copy_folder,
    exclusive,
    list_backups,
    put_in_place,
    read_backup,
    read_documents,
    surplus,
    temporary_folder,
    verify_files,
    write_documents,
    write_manifest,
)
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import parse_moment, require_text

MAX_LABEL = 200

BULK = 100
"""When so many memories or messages go at once, a backup is made before; fewer come back from the trash
as easily as they went, and copying the store would take longer than that."""

_FORGETTING = "before forgetting "
_SERVES_FOR = timedelta(hours=1)


class Backups:
    """Makes, lists and restores the backups of one home; needs no open store."""

    def __init__(self, copies: Copies, documents: Documents, clock: Clock, keep: int) -> None:
        self.folder = documents.home / BACKUPS_FOLDER
        self._copies = copies
        self._documents = documents
        self._clock = clock
        self._keep = keep
        self._days = Days(documents.timezone)

    def make(self, label: str, *, on_demand: bool = False) -> Backup:
        """Back up the store and the documents as they are together, and drop what is beyond the bound.

        Others can go on writing. What is copied is what is committed, also inside a transaction.

        Raises:
            StoreCorruptError: The store is damaged; no backup of it is kept.
            StoreError: The store cannot be read, or the backup not written.
            InvalidInputError: The label is blank or long.
            DocumentError: Another process keeps writing the documents.
        """
        require_text("label", label, MAX_LABEL)
        label = " ".join(label.split())
        with exclusive(self.folder):
            return self._make_one(label, automatic=not on_demand)

    def before_forgetting(self, memories: int, messages: int = 0) -> None:
        """Back up before so many memories and messages go, if they are many; outside a transaction.

        One made for this within the last hour serves as well: what was deleted since is in the trash.

        Raises:
            StoreError: The backup cannot be made, so nothing should be deleted.
            DocumentError: Another process keeps writing the documents.
        """
        if max(memories, messages) < BULK:
            return
        counts = {"memories": memories, "messages": messages}
        label = _FORGETTING + " and ".join(f"{n:,} {what}" for what, n in counts.items() if n)
        with exclusive(self.folder):
            if not self._has_recent():
                self._make_one(label, automatic=True)

    def before_migration(self, version: int) -> None:
        """Back up a store before it is brought to a newer schema; inside the migrating transaction.

        Raises:
            NotMigratedError: The backup cannot be made, so the store should stay as it is.
        """
        # Here the store is locked first, then the backups and the documents; in `restore` the store is
        # last. Should the two meet, the restore gives up on the store after BUSY_TIMEOUT_S and lets go
        # of the rest, for which the migration waits longer. So does who edits a document, which is
        # recorded in the store while the documents are locked; making a backup locks no store.
        try:
            self.make(f"before migration from schema {version}")
        except StoreCorruptError as error:
            # Repair would have to open the store first, and so to migrate it.
            remedy = (
                "run `soulkeep restore` with one of `soulkeep backups`, or `doctor --repair` of the "
                "soulkeep that you had before"
            )
            raise NotMigratedError(self._copies.place, version, error.problem, remedy) from error
        except (StoreError, DocumentError) as error:
            reason = f"{error.path}: {error.problem}"
            raise NotMigratedError(self._copies.place, version, reason, error.remedy) from error

    def list_backups(self) -> list[Backup]:
        """Return the backups, newest first."""
        return list_backups(self.folder)

    def require(self, backup_id: str) -> None:
        """Check that there is a backup with an id.

        Raises:
            BackupNotFoundError: There is none.
        """
        if backup_id not in [backup.id for backup in self.list_backups()]:
            raise BackupNotFoundError(backup_id)

    def find(self, wanted: str) -> Backup:
        """Return the backup with an id, or the latest that is not after a moment.

        A moment is an ISO date, which means until its end, or time; without a zone it is the user's.

        Raises:
            BackupNotFoundError: There is none.
            BackupDamagedError: It has no readable manifest.
        """
        backups = self.list_backups()
        if wanted in [path.name for path in self.folder.glob("[!.]*/")]:
            return read_backup(self.folder / wanted)
        try:
            until = parse_moment("backup", wanted, self._days, end_of_day=True)
        except InvalidInputError:
            raise BackupNotFoundError(wanted) from None
        for backup in backups:
            if backup.made_at <= until:
                return backup
        raise BackupNotFoundError(wanted)

    def list_others(self, but: Collection[str] = ()) -> list[str]:
        """Return the names of all folders of backups, also of such as cannot be read, but for some."""
        return sorted({path.name for path in self.folder.glob("[!.]*/")} - {*but})

    def drop_leftovers(self) -> None:
        """Remove what a killed process left half made, with all that is in it.

        Raises:
            StoreError: The folder cannot be locked.
        """
        if any(self.folder.glob(".*/")):
            with exclusive(self.folder):
                for path in self.folder.glob(".*/"):
                    shutil.rmtree(path, ignore_errors=True)

    def rewrite(self, backup_id: str, change: Callable[[Repository, Path], None]) -> str:
        """Put what `change` makes of a copy of a backup in its place; return its new id.

        It is called with the copy's store and the folder in which the documents are.

        Raises:
            BackupDamagedError: It is not what was written, or not there.
            StoreError: It cannot be written; the backup stays as it was.
        """
        with exclusive(self.folder), temporary_folder(self.folder, "rewriting") as stage:
            original, copy = self.folder / backup_id, stage / "backup"
            backup = read_backup(original)
            tell("Writing a backup anew")
            verify_files(original)
            copy_folder(original, copy)
            with self._copies.opened(copy) as store:
                change(store, copy)
            (copy / MANIFEST).unlink()
            schema, counts = self._copies.examine(copy)
            described = {name: getattr(backup, name) for name in ("made_at", "label", "automatic")}
            write_manifest(copy, schema, counts=counts, left_out=list(backup.left_out), **described)
            # Until the new one has its name, the old one keeps its own.
            place = put_in_place(copy, self.folder, backup.made_at, backup.label)
            original.rename(stage / "former")
        return place.name

    def restore(self, wanted: str) -> Restored:
        """Set the store and the documents back to a backup, having backed up what they hold now.

        Others may have the store open: they see the restored one at their next call. Nothing is changed
        unless all of it can be. Only a process that is killed in the middle may leave documents of the
        backup beside the present store; restoring again mends that.

        Raises:
            BackupNotFoundError: There is none with this id, and none that is not after this moment.
            BackupDamagedError: It is not what was written.
            SchemaTooNewError: A later soulkeep made it.
            StoreError: The store cannot be replaced.
            DocumentError: A document cannot be replaced.
        """
        backup = self.find(wanted)
        with exclusive(self.folder), temporary_folder(self.folder, "restoring") as stage:
            copy = self._stage(backup, stage / "backup")
            has_store = self._copies.is_there()
            damaged = None if has_store else self._begin_anew()
            with locked(self._documents.home), ExitStack() as undo:
                with self._copies.replacing(copy, continuing=has_store) as staged:
                    restored = self._keep_present(backup, damaged)
                    sessions = Sessions(staged, self._clock)
                    with staged.transaction():
                        details = {"backup": backup.id}
                        sessions.audit(sessions.current(), "store.restored", details)
                    self._replace_documents(copy, restored, undo)
                undo.pop_all()
            self._drop_surplus(backup.id)
        return restored

    def _has_recent(self) -> bool:
        """Whether a backup before forgetting is young enough to serve for the next one."""
        now = self._clock()
        return any(
            backup.automatic
            and backup.label.startswith(_FORGETTING)
            and timestamp(now - _SERVES_FOR) < backup.made_at <= timestamp(now)
            for backup in self.list_backups()
        )

    def _make_one(self, label: str, *, automatic: bool) -> Backup:
        lock = locked(self._documents.home)
        backup, _ = self._make(label, automatic=automatic, lock=lock)
        self._drop_surplus(None)
        return backup

    def _make(
        self, label: str, *, automatic: bool, lock: AbstractContextManager[None]
    ) -> tuple[Backup, Path]:
        with temporary_folder(self.folder, "making") as path, ExitStack() as moment:
            with lock:
                now = timestamp(self._clock())
                store = moment.enter_context(self._copies.snapshot())
                documents, left_out = self._documents.read_all()
            store.copy_to(path)
            moment.close()
            _write_verified(path, documents)
            tell("Checking the copy of the store")
            schema = self._examined(path, store.counts)
            described = {"made_at": now, "label": label, "automatic": automatic, "left_out": left_out}
            write_manifest(path, schema, counts=dict(store.counts), **described)
            place = put_in_place(path, self.folder, now, label)
        return read_backup(place), place

    def _examined(self, path: Path, expected: Mapping[str, int]) -> int:
        """Return the schema version of a copy just made of the present store."""
        try:
            schema, counts = self._copies.examine(path)
        except BackupDamagedError as error:
            raise StoreCorruptError(self._copies.place, error.detail) from error
        if counts != expected:
            raise StoreCorruptError(self._copies.place, "a copy of it holds other rows")
        return schema

    def _drop_surplus(self, spare: str | None) -> None:
        backups = self.list_backups()
        for backup in surplus(backups, self._keep, spare) if backups else ():
            # Under its name it is whole or not there at all.
            with temporary_folder(self.folder, "dropping") as path:
                (self.folder / backup.id).rename(path / backup.id)

    def _stage(self, backup: Backup, path: Path) -> Path:
        """Return a verified copy of a backup's store."""
        original = self.folder / backup.id
        tell("Checking the backup")
        verify_files(original)
        _, counts = self._copies.examine(original)
        if counts != backup.counts:
            raise BackupDamagedError(original, "its counts are not those of its manifest")
        tell("Copying the backup")
        copy_folder(original, path)
        return path

    def _begin_anew(self) -> tuple[Path, tuple[str, ...]] | None:
        """Begin a store where there is none, or something else, which is kept; return where, if so."""
        kept = self._keep_damaged()
        self._copies.begin_anew()
        return kept

    def _keep_present(self, backup: Backup, damaged: tuple[Path, tuple[str, ...]] | None) -> Restored:
        try:
            if not damaged:
                former, kept = self._make("before-restore", automatic=True, lock=nullcontext())
                return Restored(backup, former, kept, former.left_out)
        except StoreCorruptError:
            damaged = self._keep_damaged()
            if not damaged:
                raise
        return Restored(backup, None, *damaged)

    def _keep_damaged(self) -> tuple[Path, tuple[str, ...]] | None:
        """Keep a store that is no longer readable, and the documents; None where there is no store."""
        with temporary_folder(self.folder, "making") as path:
            if not self._copies.keep_files(path):
                return None
            documents, left_out = self._documents.read_all()
            _write_verified(path, documents)
            kept = put_in_place(path, self.folder, timestamp(self._clock()), "damaged")
            return kept, tuple(left_out)

    def _replace_documents(self, source: Path, restored: Restored, undo: ExitStack) -> None:
        new, former = read_documents(source), read_documents(restored.kept)
        leave = {*restored.left, *restored.backup.left_out}
        undo.callback(self._documents.replace_all, former, new, leave)
        self._documents.replace_all(new, former, leave)


def _write_verified(path: Path, documents: Mapping[str, bytes]) -> None:
    write_documents(path, documents)
    if read_documents(path) != documents:
        raise StoreError(path, "a file was not written as it is", "check the disk")
