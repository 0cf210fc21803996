"""What has to last through a power cut: a file lasts only as surely as its name in the folder."""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    with suppress(OSError):
        sync_file(folder)


def sync_file(path: Path) -> None:
    """Make what a file holds last.

    Raises:
        OSError: The file system refuses.
    """
    # Windows syncs only what is open for writing, and no folders.
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder for its owner only, perhaps with those above it, to last; it may exist already.

    Raises:
        OSError: The file system refuses, or something else stands there.
    """
    if path.is_dir():
        return
    if parents and not path.parent.exists():
        make_folder(path.parent, parents=True)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file with its dates and permissions, down to the disk.

    Raises:
        OSError: The file system refuses.
    """
    shutil.copy2(source, target)
    sync_file(target)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: The file system refuses.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
