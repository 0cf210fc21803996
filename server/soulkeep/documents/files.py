"""Files that their user may be editing in this very moment, with their former texts and originals."""

import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
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


def decode(path: Path | str, content: bytes) -> str:
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


PART = ".unfinished.part"
"""The name of a version that is being written."""

SETTLED_S = 2.0
"""A file younger than this when it is read may change again without a sign in its date: FAT counts two
seconds."""


def original(name: str) -> bytes:
    """Return the shipped original of a document."""
    path = resources.files("soulkeep") / "memory_files" / name
    if not path.is_file():
        # An editable install has no copy inside the package: the originals are in the checkout.
        path = Path(__file__).parents[3] / "memory_files" / name
    return path.read_bytes()


@dataclass(eq=False)
class Folder:
    """The documents of a home as files in its folder, which their user may edit at any time."""

    place: Path
    in_store = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing the documents of a home during the block.

        Inside it the same thread may lock them again.

        Raises:
            HomeGoneError: There is no such folder any more.
            DocumentError: The lock cannot be made, or another process does not let go of it.
        """
        from filelock import FileLock, Timeout

        if not self.place.is_dir():
            raise HomeGoneError(self.place)  # the lock would make the folder anew
        path = self.place / LOCK_NAME
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

    def add(self, names: Collection[str], content: Callable[[str], bytes]) -> list[str]:
        """Add those of these documents that are missing, and the folder of logs; name what was added.

        Raises:
            HomeGoneError: There is no home.
            DocumentError: It cannot be written.
        """
        try:
            make_folder(self.place / "daily")
            return [name for name in names if put_new(self.place / name, partial(content, name))]
        except FileNotFoundError as error:
            raise HomeGoneError(self.place) from error
        except FileExistsError as error:
            what = "something else stands where the folder of the daily logs should be"
            remedy = "move it away, or set SOULKEEP_HOME to another folder"
            raise DocumentError(self.place / "daily", what, remedy) from error
        except OSError as error:
            raise DocumentError(
                self.place,
                f"the documents cannot be put here ({error.strerror})",
                "make the folder writable for you, or set SOULKEEP_HOME to one that is",
            ) from error

    def read(self, name: str) -> bytes | None:
        """Return what a document says; None where nothing is in its place."""
        path = self.place / name
        return read(locate(self.place, path)) if os.path.lexists(path) else None

    def list_names(self, folder: str) -> list[str]:
        """Return the names in a folder of the home."""
        if not (self.place / folder).is_dir():
            return []
        # There may be thousands, and they are asked for often: no path is made of each.
        with os.scandir(self.place / folder) as entries:
            return [entry.name for entry in entries]

    def stamps(self, names: Sequence[str]) -> dict[str, tuple[str, int, bool]]:
        """Return what changes when a file or folder does, its bytes, and whether any change shows."""
        found = {}
        for name in names:
            with suppress(OSError):  # it is not there, or was dropped by another process meanwhile
                status = (self.place / name).stat()
                stamp = f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"
                is_settled = abs(time.time_ns() - status.st_mtime_ns) > SETTLED_S * 1e9
                found[name] = stamp, status.st_size, is_settled
        return found

    def rewrite(
        self, name: str, change: Callable[[bytes], bytes], keep: Callable[[bytes], None]
    ) -> bytes:
        """Replace a file's content in one step, whatever its user does meanwhile; see `rewrite`."""
        path = self.place / name
        with writing(path), self.locked():
            return rewrite(locate(self.place, path), change, keep)

    def append(self, name: str, addition: Callable[[bytes], bytes]) -> None:
        """Add to the end of a file, made if it is missing, in one write and down to the disk.

        Raises:
            DocumentError: It is no regular file, or the system would not do it; nothing was added.
        """
        with writing(self.place / name), self.locked():
            make_folder((self.place / name).parent)
            path = locate(self.place, self.place / name)
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
                    # An editor that renamed its own file over this one never saw what was added.
                    if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                        if is_new:
                            sync_folder(path.parent)
                        return
                finally:
                    os.close(descriptor)
        raise DocumentError(path, "another program keeps writing it", "close it there and try again")

    def put(self, name: str, content: bytes) -> None:
        """Put a former text in its place, whole or not at all."""
        path = self.place / name
        with writing(path.parent):
            for folder in (path.parent.parent, path.parent):
                make_folder(folder)
            part = path.with_name(PART)
            part.unlink(missing_ok=True)
            write_new(part, content)
            part.replace(path)
            sync_folder(path.parent)

    def remove(self, name: str, content: bytes | None = None) -> None:
        """Remove a file, with `content` one that still says this."""
        path = self.place / name
        with writing(path):
            if os.path.lexists(path) and (content is None or read(path) == content):
                locate(self.place, path).unlink()
                sync_folder(path.parent)

    def drop_leftovers(self) -> None:
        """Remove what killed processes left of files half written."""
        with writing(self.place), self.locked():
            parts = [self.place / f".{name}.md.part" for name in ("SOUL", "MEMORY")]
            parts += self.place.glob("daily/.????-??-??.md.part")
            parts += self.place.glob(f"history/*/{PART}")
            for part in parts:
                part.unlink(missing_ok=True)


def put_new(target: Path, content: Callable[[], bytes]) -> bool:
    """Put a file in its place unless anything is there, whole or not at all; return whether it was.

    Raises:
        OSError: The file system refuses.
    """
    if os.path.lexists(target):
        return False
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    try:
        write_new(unfinished, content())
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
