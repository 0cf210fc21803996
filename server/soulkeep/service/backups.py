"""Backups of the store and the documents together, and going back to one.

Each is a folder, with a manifest that says what is in it, written last.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from soulkeep import __version__
from soulkeep.days import Days
from soulkeep.disk import copy_file, digest_of, make_folder, sync_folder
from soulkeep.documents import Documents, Folder
from soulkeep.documents.files import write_new
from soulkeep.errors import (
    BackupDamagedError,
    BackupNotFoundError,
    BackupsBusyError,
    DocumentError,
    InvalidInputError,
    NotMigratedError,
    StoreCorruptError,
    StoreError,
)
from soulkeep.models import BACKUPS_FOLDER, Backup, Clock, Restored, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Copies, Repository
from soulkeep.service.callers import Sessions, parse_moment, require_text

MAX_LABEL = 200

BULK = 100
"""When so many memories or messages go at once, a backup is made before; fewer come back from the trash
as easily as they went, and copying the store would take longer than that."""

_FORGETTING = "before forgetting "
_SERVES_FOR = timedelta(hours=1)


class Backups:
    """Makes, lists and restores the backups of one home; needs no open store."""

    in_store = False
    """Whether they are kept where the store is, which erases what a purge takes out of them."""

    def __init__(
        self, path: Path, copies: Copies, documents: Documents, clock: Clock, keep: int
    ) -> None:
        """Keep so many backups in a folder of the home at `path`, of its store and its documents."""
        self.folder = path / BACKUPS_FOLDER
        self._copies = copies
        self._documents, self._days = documents, Days(documents.timezone)
        self._clock = clock
        self._keep = keep
        self._exclusive: Callable[[], AbstractContextManager[None]] = partial(exclusive, self.folder)

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
        with self._exclusive():
            backup = self._make(label, automatic=not on_demand)
            self._drop_surplus(None)
        return backup

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
        with self._exclusive():
            now = self._clock()
            has_recent = any(
                backup.automatic
                and backup.label.startswith(_FORGETTING)
                and timestamp(now - _SERVES_FOR) < backup.made_at <= timestamp(now)
                for backup in self.list_backups()
            )
            if not has_recent:
                self._make(label, automatic=True)
                self._drop_surplus(None)

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
        """Return the backups, newest first; folders without a readable manifest are left out."""
        found = []
        for path in self.folder.glob(f"[!.]*/{MANIFEST}"):
            with suppress(BackupDamagedError):
                found.append(read_backup(path.parent))
        return sorted(found, key=lambda backup: (backup.made_at, backup.id), reverse=True)

    def find(self, wanted: str) -> Backup:
        """Return the backup with an id, or the latest that is not after a moment.

        A moment is an ISO date, which means until its end, or time; without a zone it is the user's.

        Raises:
            BackupNotFoundError: There is none.
            BackupDamagedError: It has no readable manifest.
        """
        backups = self.list_backups()
        if named := [backup for backup in backups if backup.id == wanted]:
            return named[0]
        if wanted in self.list_others():
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
            with self._exclusive():
                for path in self.folder.glob(".*/"):
                    shutil.rmtree(path, ignore_errors=True)

    def size(self) -> int:
        """Return how many bytes all backups take, with what else is kept there."""
        size = 0
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # gone meanwhile, or not to be looked at
                size += path.stat().st_size if path.is_file() else 0
        return size

    def rewrite(self, backup_id: str, change: Callable[[Repository, dict[str, bytes]], None]) -> str:
        """Put what `change` makes of a copy of a backup in its place; return its new id.

        It is called with the copy's store and its documents by their names in the home.

        Raises:
            BackupDamagedError: It is not what was written, or not there.
            StoreError: It cannot be written; the backup stays as it was.
        """
        with self._exclusive(), temporary_folder(self.folder, "rewriting") as stage:
            original, copy = self.folder / backup_id, stage / "backup"
            backup = read_backup(original)
            tell("Writing a backup anew")
            verify_files(original)
            copy_folder(original, copy)
            former = read_documents(copy)
            with self._copies.opened(copy) as store:
                change(store, documents := {**former})
            for name, content in documents.items():
                if content != former[name]:
                    (copy / name).write_bytes(content)
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
        with self._exclusive(), temporary_folder(self.folder, "restoring") as stage:
            original, copy = self.folder / backup.id, stage / "backup"
            tell("Checking the backup")
            verify_files(original)
            if self._copies.examine(original)[1] != backup.counts:
                raise BackupDamagedError(original, "its counts are not those of its manifest")
            tell("Copying the backup")
            copy_folder(original, copy)
            has_store = self._copies.is_there()
            # Something else may be in the store's place, which is kept.
            damaged = None if has_store else self._keep_damaged()
            with self._documents.texts.locked(), ExitStack() as undo:
                with self._copies.replacing(copy, continuing=has_store) as staged:
                    restored, kept = self._keep_present(backup, damaged)
                    sessions = Sessions(staged, self._clock)
                    with staged.transaction():
                        details = {"backup": backup.id}
                        sessions.audit(sessions.current(), "store.restored", details)
                    new, former = read_documents(copy), read_documents(kept)
                    leave = {*restored.left, *backup.left_out}
                    undo.callback(self._documents.replace_all, former, new, leave)
                    self._documents.replace_all(new, former, leave)
                undo.pop_all()
            self._drop_surplus(backup.id)
        return restored

    def _make(self, label: str, *, automatic: bool, is_locked: bool = False) -> Backup:
        with temporary_folder(self.folder, "making") as path, ExitStack() as moment:
            with nullcontext() if is_locked else self._documents.texts.locked():
                now = timestamp(self._clock())
                store = moment.enter_context(self._copies.snapshot())
                documents, left_out = self._documents.read_all()
            store.copy_to(path)
            moment.close()
            _write_verified(path, documents)
            tell("Checking the copy of the store")
            try:
                schema, counts = self._copies.examine(path)
            except BackupDamagedError as error:
                raise StoreCorruptError(self._copies.place, error.detail) from error
            if counts != store.counts:
                raise StoreCorruptError(self._copies.place, "a copy of it holds other rows")
            described = {"made_at": now, "label": label, "automatic": automatic, "left_out": left_out}
            write_manifest(path, schema, counts=counts, **described)
            place = put_in_place(path, self.folder, now, label)
        return read_backup(place)

    def _drop_surplus(self, spare: str | None) -> None:
        backups = self.list_backups()
        for backup in surplus(backups, self._keep, spare) if backups else ():
            # Under its name it is whole or not there at all.
            with temporary_folder(self.folder, "dropping") as path:
                (self.folder / backup.id).rename(path / backup.id)

    def _keep_present(
        self, backup: Backup, damaged: tuple[Path, tuple[str, ...]] | None
    ) -> tuple[Restored, Path]:
        try:
            if not damaged:
                former = self._make("before-restore", automatic=True, is_locked=True)
                kept = self.folder / former.id
                return Restored(backup, former, kept, former.left_out), kept
        except StoreCorruptError:
            damaged = self._keep_damaged()
            if not damaged:
                raise
        return Restored(backup, None, *damaged), damaged[0]

    def _keep_damaged(self) -> tuple[Path, tuple[str, ...]] | None:
        """Keep a store that is no longer readable, and the documents; None where there is no store."""
        with temporary_folder(self.folder, "making") as path:
            if not self._copies.keep_files(path):
                return None
            documents, left_out = self._documents.read_all()
            _write_verified(path, documents)
            kept = put_in_place(path, self.folder, timestamp(self._clock()), "damaged")
            return kept, tuple(left_out)


def _write_verified(path: Path, documents: Mapping[str, bytes]) -> None:
    """Put documents under their names into a folder, for their owner only, and read them again."""
    (path / "daily").mkdir(mode=0o700)
    for name, content in documents.items():
        write_new(path / name, content)
    if read_documents(path) != documents:
        raise StoreError(path, "a file was not written as it is", "check the disk")


MANIFEST = "manifest.json"
LOCK_TIMEOUT_S = 60.0

_LOCK = ".lock"
_NAME_CHARACTERS = 40


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from making and restoring backups during the block; make the folder.

    Raises:
        BackupsBusyError: Another process does not finish.
        StoreError: The folder cannot be made or locked, or something in it not written.
    """
    from filelock import FileLock, Timeout

    try:
        make_folder(folder)
        lock = FileLock(folder / _LOCK, timeout=LOCK_TIMEOUT_S, mode=0o600)
        try:
            lock.acquire()
        except Timeout as error:
            raise BackupsBusyError(folder) from error
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        problem = f"a backup cannot be written here ({error.strerror or error})"
        remedy = "free some space or make the folder writable for you, then try again"
        raise StoreError(folder, problem, remedy) from error


@contextmanager
def temporary_folder(folder: Path, name: str) -> Iterator[Path]:
    """Give an empty folder to work in, gone after the block; so is what a killed process left."""
    path = folder / f".{name}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder with all that is in it, up to the first file that cannot be copied.

    Raises:
        OSError: The file system refuses. That of shutil.copytree holds a list of tuples, not a sentence.
    """
    target.mkdir(mode=0o700)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(mode=0o700)
        else:
            copy_file(path, place)


def read_backup(path: Path) -> Backup:
    """Return what the manifest of a backup says.

    Raises:
        BackupDamagedError: It cannot be read.
    """
    manifest = _manifest(path)
    try:
        return Backup(
            id=path.name,
            made_at=str(manifest["made_at"]),
            label=str(manifest["label"]),
            automatic=bool(manifest["automatic"]),
            size=sum(int(file["size"]) for file in manifest["files"].values()),
            counts={str(name): int(count) for name, count in manifest["counts"].items()},
            left_out=tuple(map(str, manifest["left_out"])),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BackupDamagedError(path, "its manifest is not one of soulkeep") from error


def write_manifest(path: Path, schema: int, **described: Any) -> None:
    """Say what a backup holds: what is `described`, and each file with its size and SHA-256.

    Raises:
        OSError: The file system refuses.
    """
    manifest = {
        "soulkeep": __version__,
        "schema": schema,
        **described,
        "files": {
            file.relative_to(path).as_posix(): {"size": file.stat().st_size, "sha256": digest_of(file)}
            for file in sorted(path.rglob("*"))
            if file.is_file()
        },
    }
    write_new(path / MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())


def read_documents(path: Path) -> dict[str, bytes]:
    """Return the documents of a backup by their names in a home."""
    return Documents(Folder(path)).read_all()[0]


def verify_files(path: Path) -> None:
    """Check that each file of a backup is as it was written, and that there are no others.

    Raises:
        BackupDamagedError: One differs, is missing or was added.
    """
    files = _manifest(path)["files"]
    try:
        differing = [name for name, file in files.items() if digest_of(path / name) != file["sha256"]]
    except OSError as error:
        raise BackupDamagedError(path, f"a file cannot be read ({error.strerror})") from error
    added = read_documents(path).keys() - files.keys()
    if differing or added:
        raise BackupDamagedError(path, f"{[*differing, *added][0]} is not what was written")


def missing_from(path: Path) -> str:
    """Say in what a backup is not what was written, by the sizes of its files; "" where it seems whole.

    A folder without a manifest is none: what was damaged or written over is kept in such.
    """
    try:
        files = _manifest(path)["files"] if (path / MANIFEST).exists() else {}
        sizes = {name: (path / name).stat().st_size for name in files}
    except BackupDamagedError as error:
        return error.detail
    except OSError as error:
        return f"a file cannot be read ({error.strerror})"
    return next((f"{n} is not what was written" for n in files if sizes[n] != files[n]["size"]), "")


def put_in_place(unfinished: Path, folder: Path, made_at: str, label: str) -> Path:
    """Give a finished backup its name and return its place.

    Raises:
        OSError: The file system refuses.
    """
    for made in (unfinished, *filter(Path.is_dir, unfinished.rglob("*"))):
        sync_folder(made)
    target = folder / new_id(made_at, label, lambda name: (folder / name).exists())
    unfinished.rename(target)
    sync_folder(folder)
    return target


def new_id(made_at: str, label: str, is_taken: Callable[[str], bool]) -> str:
    """Return an id for a backup, which is also what a folder can be called on every system."""
    stamp = re.sub(r"\.\d+|:", "", made_at)  # colons cannot be in file names everywhere
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower())[:_NAME_CHARACTERS].strip("-")
    name = first = f"{stamp}-{slug}" if slug else stamp
    number = 1
    while is_taken(name):
        number += 1
        name = f"{first}-{number}"
    return name


def surplus(backups: Sequence[Backup], keep: int, spare: str | None = None) -> list[Backup]:
    """Return which of the backups, newest first, have to go so that `keep` are left.

    Automatic ones go first, the oldest before the others. One made on demand goes only for a newer one
    of its kind, and the newest of all and the one to `spare` stay.
    """
    newest, *older = backups
    older = [backup for backup in reversed(older) if backup.id != spare]
    going = [backup for backup in older if backup.automatic]
    if not newest.automatic:
        going += [backup for backup in older if not backup.automatic]
    return going[: max(0, len(backups) - keep)]


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise BackupDamagedError(path, "its manifest cannot be read") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BackupDamagedError(path, "its manifest is not one of soulkeep")
    return manifest
