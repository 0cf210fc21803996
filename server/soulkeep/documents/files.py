"""Files that their user may be editing in this very moment, with their former texts and originals."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

from soulkeep.disk import make_folder, sync_folder
from soulkeep.errors import DocumentError, HomeGoneError

LOCK_NAME = ".documents.lock"
LOCK_TIMEOUT_S = 30.0

LEAVE = "rename it or mend it by hand; soulkeep leaves it as it is"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with where the disk, the user's share of it or a file may not grow."""

_LOCK_POLL_S = 0.005
_ATTEMPTS = 20
_PAUSE_S = 0.02
_EMPTY_S = 0.2
"""For how long an empty file may be one that an editor is about to fill."""
_SETTLE_S = 1.0
"""For how long an editor that rewrites a file may take between two looks."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a document in the block.

    Raises:
        DocumentError: The system would not do it.
    """
    try:
        yield
    except OSError as error:
        remedy = "free some space and retry" if error.errno in _NO_ROOM else LEAVE
        raise DocumentError(path, f"it cannot be written ({error.strerror})", remedy) from error


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Keep every other process from writing the documents of a home during the block.

    Inside it the same thread may lock them again.

    Raises:
        HomeGoneError: There is no such folder any more.
        DocumentError: The lock cannot be made, or another process does not let go of it.
    """
    from filelock import FileLock, Timeout

    if not home.is_dir():
        raise HomeGoneError(home)  # the lock would make the folder anew
    path = home / LOCK_NAME
    lock = FileLock(path, timeout=LOCK_TIMEOUT_S, mode=0o600, is_singleton=True)
    try:
        lock.acquire(poll_interval=_LOCK_POLL_S)
    except Timeout as error:
        problem = "another process is writing the documents and did not finish in time"
        raise DocumentError(path, problem, "try again in a moment") from error
    except (OSError, NotImplementedError) as error:
        problem = f"the documents cannot be locked ({error})"
        raise DocumentError(path, problem, "make the folder writable for you") from error
    try:
        yield
    finally:
        lock.release()


def locate(home: Path, path: Path) -> Path:
    """Return where the text of a document really is: a link may lead anywhere inside the home.

    Raises:
        DocumentError: A link leads out of the home, or nowhere.
    """
    if not path.is_symlink() and not path.parent.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(home)):
        problem = "a link in this place leads out of the home"
        remedy = "put the file itself here, or link from there to here; soulkeep leaves both as they are"
        raise DocumentError(path, problem, remedy)
    if path.is_symlink() and not target.exists():
        raise DocumentError(path, "a link in this place leads nowhere", LEAVE)
    return target


def read(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        DocumentError: It is none, or cannot be read.
    """
    try:
        with closing(OpenSnapshot(path)) as snapshot:
            return snapshot.content
    except OSError as error:
        raise DocumentError(path, f"it cannot be read ({error.strerror})", LEAVE) from error


def decode(path: Path, content: bytes) -> str:
    """Return content as text, line ends and byte order mark as they are.

    Raises:
        DocumentError: It is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
        raise DocumentError(path, problem, "save it as UTF-8 in your editor") from error


def rewrite(path: Path, change: Callable[[bytes], bytes], keep: Callable[[bytes], None]) -> bytes:
    """Replace a file's content in one step, whatever its user does to it meanwhile; return the new one.

    Args:
        path: The file itself, not a link to it.
        change: From the content to the new one; called anew where another program was quicker.
        keep: Called with each content before it is replaced.

    Raises:
        DocumentError: It is no regular file, may not be written, or never stands still.
        OSError: The file system refuses.
    """
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError), closing(OpenSnapshot(path)) as snapshot:
            until = time.monotonic() + _EMPTY_S
            while not snapshot.content and time.monotonic() < until:
                time.sleep(_PAUSE_S)
                snapshot.content = snapshot.look()
            content = snapshot.content
            new = change(content)
            if new == content:
                return new
            keep(content)
            if snapshot.replace(new):
                late = snapshot.rewritten()
                if late is None:
                    return new
                _put_back(path, new, late, keep)
        # Editors and git remove a file for a moment before they make it anew.
        time.sleep(_PAUSE_S)
    raise DocumentError(path, "another program keeps writing it", "close it there and try again")


def _put_back(path: Path, ours: bytes, late: bytes, keep: Callable[[bytes], None]) -> None:
    """Put what an editor wrote into the file that we just replaced in the place of ours."""
    keep(late)
    with closing(OpenSnapshot(path)) as snapshot:
        # Anything else in this place is newer and written by hand too.
        if snapshot.content != ours or not snapshot.replace(late):
            return
        again = snapshot.rewritten()
    if again is not None:
        _put_back(path, late, again, keep)


class OpenSnapshot:
    """A file as it stands: held open, with what was read from it.

    An editor that rewrites the same file, rather than renaming a new one, can be seen through it even
    after the file was replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Opening a pipe would wait for a writer.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        self._status = os.fstat(descriptor)
        if not stat.S_ISREG(self._status.st_mode):
            os.close(descriptor)
            raise DocumentError(path, "it cannot be read (it is no regular file)", LEAVE)
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self.content = self._file.read()
        self.close = self._file.close

    def replace(self, content: bytes) -> bool:
        """Put content in the file's place unless the file is not any more what was read.

        Raises:
            DocumentError: The file is read-only.
            FileNotFoundError: It is gone.
            OSError: The file system refuses.
        """
        if not self._status.st_mode & 0o222:
            remedy = "make it writable if soulkeep may change it"
            raise DocumentError(self.path, "it is read-only", remedy)
        part = self.path.with_name(f".{self.path.name}.part")
        part.unlink(missing_ok=True)
        try:
            write_new(part, content, like=self._status)
            if not os.path.samestat(self.path.stat(), self._status) or self.look() != self.content:
                return False
            if os.name == "nt":
                self._file.close()  # there an open file cannot be replaced
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.path.parent)
        return True

    def rewritten(self) -> bytes | None:
        """Return what an editor wrote into this very file since it was read, once it has finished."""
        late = self.content if self._file.closed else self.look()
        until = time.monotonic() + _SETTLE_S
        while late != self.content and time.monotonic() < until:
            time.sleep(_PAUSE_S)
            before, late = late, self.look()
            if late and late == before:
                break
        return None if late == self.content else late

    def look(self) -> bytes:
        """Return what the file holds now."""
        self._file.seek(0)
        return self._file.read()


def write_new(path: Path, content: bytes, like: os.stat_result | None = None) -> None:
    """Write a file that does not exist yet, down to the disk, with the permissions of another.

    Raises:
        OSError: It exists, or the file system refuses.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        if like is not None:
            if hasattr(os, "chown"):
                with suppress(OSError):
                    os.chown(path, like.st_uid, like.st_gid)
            path.chmod(stat.S_IMODE(like.st_mode))
        os.fsync(file.fileno())


def append(path: Path, addition: Callable[[bytes], bytes]) -> None:
    """Add to the end of a file, made if it is missing, in one write and down to the disk.

    Args:
        path: The file itself, not a link to it.
        addition: From the content so far to what is added.

    Raises:
        DocumentError: It is no regular file.
        OSError: The file system refuses; nothing was added.
    """
    for _ in range(_ATTEMPTS):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)
        try:
            is_new = not os.fstat(descriptor).st_size
            content, before = addition(read(path)), os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - as a write of nothing
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
            # An editor that renamed its own file over this one meanwhile never saw what was added.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                if is_new:
                    sync_folder(path.parent)
                return
        finally:
            os.close(descriptor)
    raise DocumentError(path, "another program keeps writing it", "close it there and try again")


MAX_VERSIONS = 50

PART = ".unfinished.part"
"""The name of a version that is being written."""

_FORM = "%Y-%m-%dT%H-%M-%S.%fZ"


@dataclass(frozen=True, slots=True)
class Version:
    """A text that a document once had: its UTC timestamp as a file name can hold it, and its bytes."""

    id: str
    size: int


def list_versions(folder: Path) -> list[Version]:
    """Return the versions in a folder, newest first; files of other names are left out."""
    found = []
    for path in folder.glob("*.md"):
        # Of another name, or dropped by another process meanwhile.
        with suppress(ValueError, FileNotFoundError):
            moment = datetime.strptime(path.stem, _FORM).replace(tzinfo=UTC)
            found.append((moment, Version(path.stem, path.stat().st_size)))
    return [
        version for _, version in sorted(found, key=lambda each: (each[0], each[1].id), reverse=True)
    ]


def keep_version(folder: Path, content: bytes, now: datetime) -> None:
    """Keep a text as the newest version and drop the oldest beyond the bound.

    Raises:
        OSError: The file system refuses.
    """
    for place in (folder.parent, folder):
        make_folder(place)
    versions = list_versions(folder)
    moment = now.astimezone(UTC)
    if versions:
        newest = datetime.strptime(versions[0].id, _FORM).replace(tzinfo=UTC)
        if moment <= newest:
            moment = newest + timedelta(milliseconds=1)  # a clock that stands or was set back
    # Colons cannot be in file names everywhere.
    put_version(folder / f"{moment.strftime(_FORM)[:-4]}Z.md", content)
    for version in versions[MAX_VERSIONS - 1 :]:
        (folder / f"{version.id}.md").unlink(missing_ok=True)
    sync_folder(folder)


def put_version(path: Path, content: bytes) -> None:
    """Put a text in the place of a version, whole or not at all.

    Raises:
        OSError: The file system refuses.
    """
    part = path.with_name(PART)
    part.unlink(missing_ok=True)
    write_new(part, content)
    part.replace(path)


def seed(target: Path) -> bool:
    """Copy the shipped original of this name unless anything is there; return whether it was copied.

    Raises:
        OSError: The file system refuses.
    """
    if os.path.lexists(target):
        return False
    original = resources.files("soulkeep") / "memory_files" / target.name
    if not original.is_file():
        # An editable install has no copy inside the package: the originals are in the checkout.
        original = Path(__file__).parents[3] / "memory_files" / target.name
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    try:
        write_new(unfinished, original.read_bytes())
        try:
            # A link fails where a rename would replace what another process just put there.
            os.link(unfinished, target)
        except FileExistsError:
            return False
        except OSError:
            # FAT and some network shares have no links; a moment ago nothing was there.
            unfinished.replace(target)
        sync_folder(target.parent)
        return True
    finally:
        unfinished.unlink(missing_ok=True)
