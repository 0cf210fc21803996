"""The former texts of one document, each a file named by the moment at which it was replaced."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from soulkeep.disk import make_folder, sync_folder
from soulkeep.documents.files import write_new

MAX_VERSIONS = 50

_PART = ".unfinished.part"
_FORM = "%Y-%m-%dT%H-%M-%S.%f"


@dataclass(frozen=True, slots=True)
class Version:
    """A text that a document once had: its UTC timestamp as a file name can hold it, and its bytes."""

    id: str
    size: int


def list_versions(folder: Path) -> list[Version]:
    """Return the versions in a folder, newest first; files of other names are left out."""
    named = ((_moment(path.stem), path) for path in folder.glob("*.md"))
    found = sorted((moment, path) for moment, path in named if moment is not None)
    versions = []
    for _, path in reversed(found):
        with suppress(FileNotFoundError):  # dropped by another process meanwhile
            versions.append(Version(path.stem, path.stat().st_size))
    return versions


def keep_version(folder: Path, content: bytes, now: datetime) -> None:
    """Keep a text as the newest version and drop the oldest beyond the bound.

    Raises:
        OSError: The file system refuses.
    """
    for place in (folder.parent, folder):
        make_folder(place)
    versions = list_versions(folder)
    newest = _moment(versions[0].id) if versions else None
    moment = now.astimezone(UTC)
    if newest is not None and moment <= newest:
        moment = newest + timedelta(milliseconds=1)  # a clock that stands or was set back
    part = folder / _PART
    part.unlink(missing_ok=True)
    write_new(part, content)
    part.replace(folder / f"{_id(moment)}.md")
    for version in versions[MAX_VERSIONS - 1 :]:
        (folder / f"{version.id}.md").unlink(missing_ok=True)
    sync_folder(folder)


def rewrite_versions(folder: Path, change: Callable[[bytes], bytes]) -> int:
    """Put what `change` makes of each version in its place; return how many it made another of.

    Raises:
        OSError: The file system refuses; versions done by then stay done.
    """
    count = 0
    for version in list_versions(folder):
        path = folder / f"{version.id}.md"
        content = path.read_bytes()
        if (new := change(content)) != content:
            part = folder / _PART
            part.unlink(missing_ok=True)
            write_new(part, new)
            part.replace(path)
            count += 1
    sync_folder(folder)
    return count


def drop_versions(folder: Path) -> int:
    """Remove all versions and return how many there were.

    Raises:
        OSError: The file system refuses.
    """
    versions = list_versions(folder)
    for version in versions:
        (folder / f"{version.id}.md").unlink(missing_ok=True)
    (folder / _PART).unlink(missing_ok=True)
    sync_folder(folder)
    return len(versions)


def _id(moment: datetime) -> str:
    # Colons cannot be in file names everywhere.
    return f"{moment.strftime(_FORM)[:-3]}Z"


def _moment(name: str) -> datetime | None:
    try:
        return datetime.strptime(name, f"{_FORM}Z").replace(tzinfo=UTC)
    except ValueError:
        return None
