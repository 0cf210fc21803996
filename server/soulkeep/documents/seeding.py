"""The shipped originals of SOUL.md and MEMORY.md, put where nothing is yet."""

import os
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path

from soulkeep.disk import sync_folder
from soulkeep.documents.files import write_new


def seed(target: Path) -> bool:
    """Copy the shipped original of this name unless anything is there; return whether it was copied.

    Raises:
        OSError: The file system refuses.
    """
    if os.path.lexists(target):
        return False
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    try:
        write_new(unfinished, _original(target.name))
        is_copied = _put_in_place(unfinished, target)
        sync_folder(target.parent)
        return is_copied
    finally:
        unfinished.unlink(missing_ok=True)


def _put_in_place(unfinished: Path, target: Path) -> bool:
    try:
        # A link fails where a rename would replace what another process just put there.
        os.link(unfinished, target)
    except FileExistsError:
        return False
    except OSError:
        # FAT and some network shares have no links; a moment ago nothing was there.
        unfinished.replace(target)
    return True


def _original(name: str) -> bytes:
    with suppress(FileNotFoundError), as_file(files("soulkeep") / "memory_files" / name) as shipped:
        return shipped.read_bytes()
    # An editable install has no copy inside the package: the originals are in the checkout.
    return (Path(__file__).parents[3] / "memory_files" / name).read_bytes()
