"""SOUL.md, MEMORY.md and the daily logs: plain Markdown that belongs to the user."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

from soulkeep.documents.blocks import list_sent
from soulkeep.documents.files import LEAVE, Folder, decode, original
from soulkeep.documents.markdown import Hunk, as_item, hunk_at, log_addition
from soulkeep.errors import (
    HALF_A_PAIR,
    DocumentChangedError,
    DocumentError,
    InvalidInputError,
    NotFoundError,
    VersionNotFoundError,
)
from soulkeep.models import Clock, utc_now

__all__ = [
    "DOCUMENTS",
    "MAX_VERSIONS",
    "DocumentName",
    "Documents",
    "Folder",
    "Hunk",
    "Logged",
    "TextEdit",
    "Texts",
    "Version",
    "log_name",
]

DocumentName = Literal["SOUL.md", "MEMORY.md"]
DOCUMENTS: tuple[DocumentName, ...] = get_args(DocumentName)

TextEdit = Callable[[str], str]


MAX_VERSIONS = 50

_FORM = "%Y-%m-%dT%H-%M-%S.%fZ"


class Texts(Protocol):
    """Where the documents of a home and their former texts are kept, by their names in it.

    A name is such as MEMORY.md, daily/2026-03-01.md or history/MEMORY.md/2026-03-01T12-00-00.000Z.md.
    Any method may raise a DocumentError that says what is wrong with a document, or a StoreError where
    the store has them.
    """

    in_store: bool
    """Whether they are rows of the store: what is written inside a transaction is part of it."""

    @property
    def place(self) -> Path | str:
        """Where they are, as messages name it."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep others from writing files during the block; rows are locked by the store's transactions.

        Inside it the same thread may lock them again.
        """

    def add(self, names: Collection[str], content: Callable[[str], bytes]) -> list[str]:
        """Add those of these documents that are missing, with what is returned for each; name them."""

    def read(self, name: str) -> bytes | None:
        """Return what a document says; None where there is none."""

    def list_names(self, folder: str) -> list[str]:
        """Return the names that there are in `daily` or in `history/MEMORY.md`, in no order."""

    def stamps(self, names: Sequence[str]) -> dict[str, tuple[str, int, bool]]:
        """Return for each that is there what a change of it makes another, and how many bytes it has.

        It is followed by whether any change will show; one right after another may not. The stamp of
        `daily` is another where logs came or went, and for rows after any change of a document.
        """

    def rewrite(
        self, name: str, change: Callable[[bytes], bytes], keep: Callable[[bytes], None]
    ) -> bytes:
        """Replace what a document says in one step, whatever others do meanwhile; return the new.

        `change` is called anew where another was quicker, and `keep` with each content that is replaced.
        """

    def append(self, name: str, addition: Callable[[bytes], bytes]) -> None:
        """Add to a document, made if it is missing, what is returned for the content so far."""

    def put(self, name: str, content: bytes) -> None:
        """Put a former text in its place, whole or not at all, whatever is there."""

    def remove(self, name: str, content: bytes | None = None) -> None:
        """Remove a document, with `content` one that still says this."""

    def drop_leftovers(self) -> None:
        """Remove what killed processes left half written."""


@dataclass(frozen=True, slots=True)
class Version:
    """A text that a document once had: its UTC timestamp as a file name can hold it, and its bytes."""

    id: str
    size: int


class Logged(NamedTuple):
    """An entry of a daily log: its day, the time of its header as `HH:MM`, and the hunk of adding it."""

    day: date
    time: str
    hunk: Hunk


def log_name(day: date) -> str:
    """Return the name of the log of a day in a home."""
    return f"daily/{day.isoformat()}.md"


@dataclass(eq=False)
class Documents:
    """The documents of a home, which exists already.

    Days and times are those of `timezone`; without one, of the machine.
    """

    texts: Texts
    clock: Clock = utc_now
    timezone: tzinfo | None = None

    def seed(self) -> list[str]:
        """Put the shipped original of each document that is missing in its place; return their names.

        What exists, whatever it is, stays as it is.

        Raises:
            HomeGoneError: There is no home.
            DocumentError: It cannot be written.
        """
        return self.texts.add(DOCUMENTS, original)

    def read(self, name: DocumentName) -> str:
        """Return a document as it is now, seeding it if it is missing.

        Raises:
            DocumentError: It is no text in UTF-8, cannot be read, or a link out of the home.
        """
        content = self.texts.read(name)
        if content is None:
            self.seed()
            content = self.texts.read(name)
        if content is None:
            raise DocumentError(f"{self.texts.place}/{name}", "it was taken away meanwhile", LEAVE)
        return decode(f"{self.texts.place}/{name}", content)

    def edit(self, name: DocumentName | date, change: TextEdit) -> str:
        """Edit the text of a document, or of the log that a day has; return the new one.

        An unchanged text writes nothing. A document's former text is kept as a version. Where the user
        was quicker, `change` is called again with what the user wrote.

        Raises:
            DocumentError: It cannot be read or written.
            DocumentChangedError: The user took away what `change` needs while it was at work.
            InvalidInputError: The new text is none that a file can hold.
        """
        full = log_name(name) if isinstance(name, date) else str(name)
        if full in DOCUMENTS and not self.texts.stamps([full]):
            self.seed()
        path, texts = f"{self.texts.place}/{full}", list[str]()

        def changed(content: bytes) -> bytes:
            text = decode(path, content)
            try:
                texts.append(change(text))
            except NotFoundError as error:
                if not texts:
                    raise
                raise DocumentChangedError(path) from error
            return _encoded(texts[-1])

        return self.texts.rewrite(full, changed, self._keeping(full)).decode()

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
        hunks: list[Hunk] = []

        def added(former: bytes) -> bytes:
            begun = "" if former else title
            text = decode(f"{self.texts.place}/{log_name(day)}", former) + begun
            new = addition(text)
            hunks.append(hunk_at(text + new, len(text), "", new))
            return (begun + new).encode()

        self.texts.append(log_name(day), added)
        return hunks[-1]

    def read_daily(self, day: date) -> str | None:
        """Return the log of a day; None if there is none.

        Raises:
            DocumentError: It is no text in UTF-8, cannot be read, or a link out of the home.
        """
        content = self.texts.read(log_name(day))
        return None if content is None else decode(f"{self.texts.place}/{log_name(day)}", content)

    def list_daily(self) -> list[date]:
        """Return the days that have a log, oldest first; files of other names are left out."""
        days = []
        for name in self.texts.list_names("daily"):
            with suppress(ValueError):
                day = date.fromisoformat(name[:10])
                if name == f"{day}.md":
                    days.append(day)
        return sorted(days)

    def list_versions(self, name: str) -> list[Version]:
        """Return the former texts of a document, newest first; files of other names are left out."""
        names = [_version_name(name, file[:-3]) for file in self.texts.list_names(f"history/{name}")]
        found = []
        for full, (_, size, _) in self.texts.stamps(names).items():
            with suppress(ValueError):
                version = full.rpartition("/")[2].removesuffix(".md")
                found.append((_moment_of(version), Version(version, size)))
        return [kept for _, kept in sorted(found, key=lambda each: (each[0], each[1].id), reverse=True)]

    def read_version(self, name: DocumentName, version: str) -> str:
        """Return a former text of a document.

        Raises:
            VersionNotFoundError: No such version is kept.
            DocumentError: It cannot be read.
        """
        full = _version_name(name, version)
        kept = version in [kept.id for kept in self.list_versions(name)]
        content = self.texts.read(full) if kept else None
        if content is None:
            raise VersionNotFoundError(name, version)
        return decode(f"{self.texts.place}/{full}", content)

    def list_history(self) -> list[str]:
        """Return the names of the former texts of all documents."""
        return [
            _version_name(name, version.id) for name in DOCUMENTS for version in self.list_versions(name)
        ]

    def read_history(self) -> Iterator[tuple[str, bytes]]:
        """Yield the former texts of all documents with their names in the home.

        Raises:
            DocumentError: One cannot be read.
        """
        for name in self.list_history():
            if (content := self.texts.read(name)) is not None:  # dropped meanwhile
                yield name, content

    def rewrite_history(self, change: TextEdit) -> int:
        """Put what `change` makes of each former text in its place; return how many are others now.

        Former texts that are none in UTF-8 stay as they are.

        Raises:
            DocumentError: One cannot be read or written.
        """
        count = 0
        with self.texts.locked():
            for name, former in self.read_history():
                with suppress(UnicodeDecodeError):
                    if (new := change(former.decode()).encode()) != former:
                        self.texts.put(name, new)
                        count += 1
        return count

    def drop_history(self) -> int:
        """Remove all former texts of all documents; return how many there were.

        Raises:
            DocumentError: One cannot be removed.
        """
        with self.texts.locked():
            names = self.list_history()
            for name in names:
                self.texts.remove(name)
        return len(names)

    def read_all(self) -> tuple[dict[str, bytes], list[str]]:
        """Return every document by its name in the home, and the names of those that cannot be read."""
        found, unreadable = dict[str, bytes](), []
        for name in (*DOCUMENTS, *map(log_name, self.list_daily())):
            try:
                if (content := self.texts.read(name)) is not None:
                    found[name] = content
            except DocumentError:
                unreadable.append(name)
        return found, unreadable

    def replace_all(
        self, new: Mapping[str, bytes], former: Mapping[str, bytes], leave: Collection[str]
    ) -> None:
        """Make the documents say what `new` does where they still say what `former` does.

        Call it inside `texts.locked`. Logs that `new` lacks are removed, and names in `leave` are left
        alone, as is what the user changes meanwhile.

        Raises:
            DocumentError: One cannot be written; others may have been.
        """
        for name in sorted({*new, *former} - {*leave}):
            if name not in new:
                if name not in DOCUMENTS:
                    self.texts.remove(name, former[name])
            elif name not in former:
                self.texts.add([name], new.__getitem__)
            elif new[name] != former[name]:
                self.texts.rewrite(name, partial(_swapped, former, new, name), self._keeping(name))

    def _keeping(self, name: str) -> Callable[[bytes], None]:
        """Return what keeps a content of a document as its newest version; the oldest make room."""

        def keep(content: bytes) -> None:
            versions, moment = self.list_versions(name), self.clock().astimezone(UTC)
            if versions and moment <= (newest := _moment_of(versions[0].id)):
                moment = newest + timedelta(milliseconds=1)  # a clock that stands or was set back
            # Colons cannot be in file names everywhere.
            self.texts.put(_version_name(name, f"{moment.strftime(_FORM)[:-4]}Z"), content)
            for version in versions[MAX_VERSIONS - 1 :]:
                self.texts.remove(_version_name(name, version.id))

        return keep if name in DOCUMENTS else lambda _: None


def _swapped(former: Mapping[str, bytes], new: Mapping[str, bytes], name: str, content: bytes) -> bytes:
    return new[name] if content == former[name] else content


def _moment_of(version: str) -> datetime:
    return datetime.strptime(version, _FORM).replace(tzinfo=UTC)


def _version_name(name: str, version: str) -> str:
    return f"history/{name}/{version}.md"


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("text", HALF_A_PAIR) from error
