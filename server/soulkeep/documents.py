"""SOUL.md, MEMORY.md and the daily logs: plain Markdown that belongs to the user."""

import os
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, get_args

from soulkeep.errors import DocumentError

DocumentName = Literal["SOUL.md", "MEMORY.md"]
DOCUMENTS: tuple[DocumentName, ...] = get_args(DocumentName)

_LEAVE = "rename it or mend it by hand; soulkeep leaves it as it is"


class Documents:
    """The documents in a home, which exists already."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def seed(self) -> list[str]:
        """Copy each shipped original that is missing and make the folder of daily logs.

        What exists, whatever it is, stays as it is. Return the names of what was copied.

        Raises:
            DocumentError: The home cannot be written.
        """
        try:
            (self.home / "daily").mkdir(mode=0o700, exist_ok=True)
            return [name for name in DOCUMENTS if self._seed_one(name)]
        except OSError as error:
            raise DocumentError(
                self.home,
                f"the documents cannot be put here ({error.strerror})",
                "make the folder writable for you, or set SOULKEEP_HOME to one that is",
            ) from error

    def _seed_one(self, name: DocumentName) -> bool:
        target = self.home / name
        if os.path.lexists(target):
            return False
        unfinished = self.home / f".{name}.{os.getpid()}.part"
        try:
            _write(unfinished, _original(name))
            return _put_in_place(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)

    def read(self, name: DocumentName) -> str:
        """Return a document as it is on the disk now, seeding it if it is missing.

        Raises:
            DocumentError: It is no text file in UTF-8, or cannot be read.
        """
        path = self.home / name
        if not os.path.lexists(path):
            self.seed()
        try:
            return path.read_bytes().decode()
        except UnicodeDecodeError as error:
            problem = f"byte {error.start} is not UTF-8"
            raise DocumentError(path, problem, "save it as UTF-8 in your editor") from error
        except OSError as error:
            raise DocumentError(path, f"it cannot be read ({error.strerror})", _LEAVE) from error


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


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _original(name: DocumentName) -> bytes:
    with suppress(FileNotFoundError), as_file(files("soulkeep") / "memory_files" / name) as shipped:
        return shipped.read_bytes()
    # An editable install has no copy inside the package: the originals are in the checkout.
    return (Path(__file__).parents[2] / "memory_files" / name).read_bytes()
