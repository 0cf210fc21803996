"""The folder of backups: one folder each, with a manifest that says what is in it, written last."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soulkeep import __version__
from soulkeep.disk import copy_file, make_folder, sync_folder
from soulkeep.documents import Documents
from soulkeep.documents.files import write_new
from soulkeep.errors import BackupDamagedError, BackupsBusyError, StoreError
from soulkeep.models import Backup

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

    with writing(folder):
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


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        problem = f"a backup cannot be written here ({error.strerror or error})"
        remedy = "free some space or make the folder writable for you, then try again"
        raise StoreError(folder, problem, remedy) from error


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


def list_backups(folder: Path) -> list[Backup]:
    """Return the backups in a folder, newest first; folders without a readable manifest are left out."""
    found = []
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        try:
            found.append(read_backup(path.parent))
        except BackupDamagedError:
            continue
    return sorted(found, key=lambda backup: (backup.made_at, backup.id), reverse=True)


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


def write_documents(path: Path, documents: Mapping[str, bytes]) -> None:
    """Put documents under their names into a folder, for their owner only.

    Raises:
        OSError: The file system refuses.
    """
    (path / "daily").mkdir(mode=0o700)
    for name, content in documents.items():
        write_new(path / name, content)


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
            file.relative_to(path).as_posix(): {"size": file.stat().st_size, "sha256": _digest(file)}
            for file in sorted(path.rglob("*"))
            if file.is_file()
        },
    }
    write_new(path / MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())


def read_documents(path: Path) -> dict[str, bytes]:
    """Return the documents of a backup by their names in a home."""
    return Documents(path).read_all()[0]


def verify_files(path: Path) -> None:
    """Check that each file of a backup is as it was written, and that there are no others.

    Raises:
        BackupDamagedError: One differs, is missing or was added.
    """
    files = _manifest(path)["files"]
    try:
        differing = [name for name, file in files.items() if _digest(path / name) != file["sha256"]]
    except OSError as error:
        raise BackupDamagedError(path, f"a file cannot be read ({error.strerror})") from error
    added = read_documents(path).keys() - files.keys()
    if differing or added:
        raise BackupDamagedError(path, f"{[*differing, *added][0]} is not what was written")


def put_in_place(unfinished: Path, folder: Path, made_at: str, label: str) -> Path:
    """Give a finished backup its name and return its place.

    Raises:
        OSError: The file system refuses.
    """
    for made in (unfinished, *filter(Path.is_dir, unfinished.rglob("*"))):
        sync_folder(made)
    stamp = re.sub(r"\.\d+|:", "", made_at)  # colons cannot be in file names everywhere
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower())[:_NAME_CHARACTERS].strip("-")
    name = f"{stamp}-{slug}" if slug else stamp
    target, number = folder / name, 1
    while target.exists():
        number += 1
        target = folder / f"{name}-{number}"
    unfinished.rename(target)
    sync_folder(folder)
    return target


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


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
