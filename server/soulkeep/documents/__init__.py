"""SOUL.md, MEMORY.md and the daily logs: plain Markdown that belongs to the user."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, tzinfo
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from soulkeep.disk import make_folder, sync_folder
from soulkeep.documents.blocks import list_sent
from soulkeep.documents.files import (
    PART,
    Version,
    append,
    decode,
    keep_version,
    list_versions,
    locate,
    locked,
    put_version,
    read,
    rewrite,
    seed,
    write_new,
    writing,
)
from soulkeep.documents.markdown import Hunk, as_item, hunk_at, log_addition
from soulkeep.errors import (
    HALF_A_PAIR,
    DocumentChangedError,
    DocumentError,
    HomeGoneError,
    InvalidInputError,
    NotFoundError,
    VersionNotFoundError,
)
from soulkeep.models import Clock, utc_now

__all__ = ["DOCUMENTS", "DocumentName", "Documents", "Hunk", "Logged", "TextEdit", "Version"]

DocumentName = Literal["SOUL.md", "MEMORY.md"]
DOCUMENTS: tuple[DocumentName, ...] = get_args(DocumentName)

TextEdit = Callable[[str], str]


class Logged(NamedTuple):
    """An entry of a daily log: its day, the time of its header as `HH:MM`, and the hunk of adding it."""

    day: date
    time: str
    hunk: Hunk


@dataclass(eq=False)
class Documents:
    """The documents in a home, which exists already.

    Days and times are those of `timezone`; without one, of the machine.
    """

    home: Path
    clock: Clock = utc_now
    timezone: tzinfo | None = None

    def seed(self) -> list[str]:
        """Copy each shipped original that is missing and make the folder of daily logs.

        What exists, whatever it is, stays as it is. Return the names of what was copied.

        Raises:
            HomeGoneError: There is no home.
            DocumentError: It cannot be written.
        """
        try:
            make_folder(self.home / "daily")
            return [name for name in DOCUMENTS if seed(self.home / name)]
        except FileNotFoundError as error:
            raise HomeGoneError(self.home) from error
        except FileExistsError as error:
            what = "something else stands where the folder of the daily logs should be"
            remedy = "move it away, or set SOULKEEP_HOME to another folder"
            raise DocumentError(self.home / "daily", what, remedy) from error
        except OSError as error:
            raise DocumentError(
                self.home,
                f"the documents cannot be put here ({error.strerror})",
                "make the folder writable for you, or set SOULKEEP_HOME to one that is",
            ) from error

    def read(self, name: DocumentName) -> str:
        """Return a document as it is on the disk now, seeding it if it is missing.

        Raises:
            DocumentError: It is no text file in UTF-8, cannot be read, or a link out of the home.
        """
        path = self._seeded(name)
        return decode(path, read(locate(self.home, path)))

    def edit(self, name: DocumentName | date, change: TextEdit) -> str:
        """Edit the text of a document, or of the log that a day has; return the new one.

        An unchanged text writes nothing. A document's former text is kept as a version. Where the user
        was quicker, `change` is called again with what the user wrote.

        Raises:
            DocumentError: It cannot be read or written.
            DocumentChangedError: The user took away what `change` needs while it was at work.
            InvalidInputError: The new text is none that a file can hold.
        """
        path = self.daily_path(name) if isinstance(name, date) else self._seeded(name)
        texts: list[str] = []

        def changed(content: bytes) -> bytes:
            text = decode(path, content)
            try:
                texts.append(change(text))
            except NotFoundError as error:
                if not texts:
                    raise
                raise DocumentChangedError(path) from error
            return _encoded(texts[-1])

        with writing(path), locked(self.home):
            return rewrite(locate(self.home, path), changed, self._keeping(path)).decode()

    def today(self) -> date:
        """Return the user's day."""
        return self.clock().astimezone(self.timezone).date()

    def append_daily(self, text: str) -> Logged:
        """Append an entry to the log of today; a list becomes an entry an item.

        Raises:
            InvalidInputError: The text is blank, nested too deeply, or none that a file can hold.
            DocumentError: The log cannot be read or written.
        """
        entries = list_sent(_encoded(text).decode())
        item = [line for entry in entries for line in as_item(entry, argument="text")]
        now = self.clock().astimezone(self.timezone)
        day, at = now.date(), f"{now:%H:%M}"
        title = f"# {day.isoformat()}\n"
        hunk = self.add_to_log(day, lambda text: log_addition(text, at, item), title)
        return Logged(day, at, hunk)

    def add_to_log(self, day: date, addition: TextEdit, title: str = "") -> Hunk:
        """Add to the end of the log of a day what `addition` makes of its text; return that hunk.

        A new log begins with the `title`, which is no part of it.

        Raises:
            DocumentError: The log cannot be read or written.
        """
        path = self.daily_path(day)
        hunks: list[Hunk] = []

        def added(former: bytes) -> bytes:
            begun = "" if former else title
            text = decode(path, former) + begun
            new = addition(text)
            hunks.append(hunk_at(text + new, len(text), "", new))
            return (begun + new).encode()

        with writing(path), locked(self.home):
            make_folder(path.parent)
            append(locate(self.home, path), added)
        return hunks[-1]

    def read_daily(self, day: date) -> str | None:
        """Return the log of a day; None if there is none.

        Raises:
            DocumentError: It is no text file in UTF-8, cannot be read, or a link out of the home.
        """
        path = self.daily_path(day)
        if not os.path.lexists(path):
            return None
        return decode(path, read(locate(self.home, path)))

    def list_daily(self) -> list[date]:
        """Return the days that have a log, oldest first; files of other names are left out."""
        folder = self.home / "daily"
        if not folder.is_dir():
            return []
        days = []
        # There may be thousands, and they are asked for often: no path is made of each.
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(ValueError):
                    day = date.fromisoformat(entry.name[:10])
                    if entry.name == f"{day}.md":
                        days.append(day)
        return sorted(days)

    def daily_path(self, day: date) -> Path:
        """Return where the log of a day is, or would be."""
        return self.home / "daily" / f"{day.isoformat()}.md"

    def list_versions(self, name: DocumentName) -> list[Version]:
        """Return the former texts of a document, newest first."""
        return list_versions(self._history(name))

    def read_version(self, name: DocumentName, version: str) -> str:
        """Return a former text of a document.

        Raises:
            VersionNotFoundError: No such version is kept.
            DocumentError: It cannot be read.
        """
        if version not in [kept.id for kept in self.list_versions(name)]:
            raise VersionNotFoundError(name, version)
        path = self._history(name) / f"{version}.md"
        return decode(path, read(path))

    def read_history(self) -> Iterator[tuple[str, bytes]]:
        """Yield the former texts of all documents with their names in the home.

        Raises:
            DocumentError: One cannot be read.
        """
        for name in DOCUMENTS:
            for version in self.list_versions(name):
                path = self._history(name) / f"{version.id}.md"
                yield path.relative_to(self.home).as_posix(), read(path)

    def rewrite_history(self, name: DocumentName, change: TextEdit) -> int:
        """Put what `change` makes of each former text in its place; return how many are others now.

        Former texts that are none in UTF-8 stay as they are.

        Raises:
            DocumentError: One cannot be read or written.
        """
        count, folder = 0, self._history(name)
        with writing(folder), locked(self.home):
            for version in list_versions(folder):
                path = folder / f"{version.id}.md"
                with suppress(UnicodeDecodeError):
                    former = path.read_bytes()
                    if (new := change(former.decode()).encode()) != former:
                        put_version(path, new)
                        count += 1
            sync_folder(folder)
        return count

    def drop_history(self) -> int:
        """Remove all former texts of all documents; return how many there were.

        Raises:
            DocumentError: One cannot be removed.
        """
        count = 0
        for name in DOCUMENTS:
            folder = self._history(name)
            with writing(folder), locked(self.home):
                versions = list_versions(folder)
                for kept in [*(f"{version.id}.md" for version in versions), PART]:
                    (folder / kept).unlink(missing_ok=True)
                sync_folder(folder)
            count += len(versions)
        return count

    def drop_leftovers(self) -> None:
        """Remove what killed processes left of files half written.

        Raises:
            DocumentError: One cannot be removed.
        """
        with writing(self.home), locked(self.home):
            parts = [path.with_name(f".{path.name}.part") for path in map(self.home.joinpath, DOCUMENTS)]
            parts += self.home.glob("daily/.????-??-??.md.part")
            parts += self.home.glob(f"history/*/{PART}")
            for part in parts:
                part.unlink(missing_ok=True)

    def read_all(self) -> tuple[dict[str, bytes], list[str]]:
        """Return every document by its name in the home, and the names of those that cannot be read."""
        names = [*DOCUMENTS, *(f"daily/{day.isoformat()}.md" for day in self.list_daily())]
        found, unreadable = {}, []
        for name in names:
            path = self.home / name
            if os.path.lexists(path):
                try:
                    found[name] = read(locate(self.home, path))
                except DocumentError:
                    unreadable.append(name)
        return found, unreadable

    def replace_all(
        self, new: Mapping[str, bytes], former: Mapping[str, bytes], leave: Collection[str]
    ) -> None:
        """Make the documents say what `new` does where they still say what `former` does.

        Call it inside `locked`. Logs that `new` lacks are removed, and names in `leave` are left alone,
        as is what the user changes meanwhile.

        Raises:
            DocumentError: One cannot be written; others may have been.
        """
        for name in sorted({*new, *former} - {*leave}):
            path, content = self.home / name, new.get(name)
            with writing(path):
                if content is not None:
                    self._put(path, content, former.get(name))
                elif name not in DOCUMENTS and os.path.lexists(path) and read(path) == former[name]:
                    locate(self.home, path).unlink()
                    sync_folder(path.parent)

    def _put(self, path: Path, content: bytes, former: bytes | None) -> None:
        make_folder(path.parent)
        if former is None and not os.path.lexists(path):
            write_new(path, content)
            sync_folder(path.parent)
        elif former is not None and content != former:
            place = locate(self.home, path)
            rewrite(place, lambda now: content if now == former else now, self._keeping(path))

    def _keeping(self, path: Path) -> Callable[[bytes], None]:
        if path.name not in DOCUMENTS:
            return lambda _: None
        return lambda content: keep_version(self._history(path.name), content, self.clock())

    def _history(self, name: str) -> Path:
        return self.home / "history" / name

    def _seeded(self, name: DocumentName) -> Path:
        path = self.home / name
        if not os.path.lexists(path):
            self.seed()
        return path


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("text", HALF_A_PAIR) from error
