"""What readers share: the records that they yield, what they report, and files as streams.

Nothing is read whole but one line, one JSON value or one page of Markdown, each up to a bound.
"""

import codecs
import io
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from soulkeep.days import Days
from soulkeep.documents import DocumentName
from soulkeep.errors import SourceError
from soulkeep.models import NewMemory, NewMessage, timestamp
from soulkeep.wording import counted, without_hidden

MAX_VALUE = 32 * 1024**2
"""Bytes of one line, or of one value in a JSON array: a long conversation with its tools' output."""

MAX_PAGE = 2_000_000
"""Bytes of one page of Markdown, some seconds of reading it."""

MAX_LABEL = 200
KEPT_PROBLEMS = 100
"""So many problems are told one by one; the others are counted."""

CHUNK = 256 * 1024
_MAX_EXPANSION = 200
"""How many times larger than an archive what is in it may be; text gets some thirty times smaller."""
_SMALL = 10 * 1024**2
_ENCRYPTED = 1

_PACKED = "is an archive itself; import it alone"

_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)

_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"-?\d{9,}(\.\d*)?")
_DAY = re.compile(r"(?:(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{1,2})\.(\d{1,2})\.(\d{4}))(|[ T].*)")
"""A year first, or, between full stops, last."""

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_ENGLISH_DAY = re.compile(
    r"(?:[a-z]+,? )??(?:([a-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?"
    r"|(\d{1,2})(?:st|nd|rd|th)? ([a-z]{3,9})\.?),? (\d{4})(?:,?(?: at)?( \d\d:.*))?",
    re.IGNORECASE,
)
_TIME = re.compile(r"(?<![\d:+.-])(\d{1,2}):(\d\d)(:\d\d)?(?:[ \u202f]?([ap])\.?m\b\.?)?", re.IGNORECASE)
_OF_DATES = str.maketrans({"年": "-", "月": "-", "日": "", "년": "-", "월": "-", "일": ""})

_SECONDS = 1e8, 1e11
"""Fewer or more seconds are no date: 1973 and the year 5138."""


class MemoryRecord(NamedTuple):
    """A memory as a source has it; its `thread_id` is the key of a ThreadRecord that came before."""

    place: str
    memory: NewMemory


class ThreadRecord(NamedTuple):
    """A conversation or project; `key` is what the source knows it by, for ever."""

    place: str
    key: str
    title: str
    created_at: str | None = None
    last_active_at: str | None = None
    system_prompt: str | None = None
    archived: bool = False


class MessageRecord(NamedTuple):
    """A message; `key` tells it from others of the same words in the thread with the key `thread`."""

    place: str
    thread: str
    key: str
    message: NewMessage


class DocumentRecord(NamedTuple):
    """A text of which the document of this name, or the log of this day, is to have all entries."""

    place: str
    name: DocumentName | date
    text: str


Record = MemoryRecord | ThreadRecord | MessageRecord | DocumentRecord
"""What a source holds; `place` says where, for people: a file with a line, or a number in a list."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that was passed over, and why."""

    place: str
    reason: str


Rows = Callable[[str], Iterator[tuple[Any, ...]]]
"""Returns the rows of a query of a foreign database, one by one."""


@dataclass(eq=False)
class Reading:
    """One pass over a source: what helps to read it, and what is said of it beside its records."""

    days: Days
    open_database: Callable[[Path], AbstractContextManager[Rows]]
    total: int = 0
    done: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    not_kept: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float | None:
        """How much of the source has been read, 0 to 1."""
        return min(self.done / self.total, 1) if self.total else None

    def report(self, place: str, reason: str) -> None:
        """Note that a record was passed over."""
        self.problem_count += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(Problem(place, reason))

    def leave(self, what: str, count: int = 1) -> None:
        """Note that something has no place among memories."""
        if count:
            self.not_kept[what] += count

    def moment(self, value: object, *, is_end: bool = False) -> str | None:
        """Return the timestamp of a date, of a time or of seconds since 1970, or of thousandths of them.

        A time without a zone is the user's; a date is its first moment, or its last.
        """
        if value in (None, "", 0):
            return None
        try:
            found = _datetime(value)
            is_day = found.tzinfo is None and found.time() == time() and ":" not in str(value)
            return timestamp(
                self.days.last_moment(found.date()) if is_end and is_day else self.days.utc(found)
            )
        except (ValueError, TypeError, OverflowError, OSError):
            self.leave("dates that say no day")
            return None

    def text(self, value: object) -> str:
        """Return a text without space around it and what no file can hold; nothing for what is none."""
        return self.cleaned(value).strip() if isinstance(value, str) else ""

    def cleaned(self, value: str) -> str:
        """Return a text without what no file can hold, which is counted."""
        if "\0" in value:
            self.leave("NUL characters", value.count("\0"))
            value = value.replace("\0", "")
        if not value.isascii() and _SURROGATE.search(value):
            self.leave("halves of characters", len(_SURROGATE.findall(value)))
            value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value

    def label(self, name: object, among: Sequence[object] = ()) -> str | None:
        """Return a short text by which things are found: a name, with others in parentheses."""
        words = [" ".join(without_hidden(self.text(one)).split()) for one in (name, *among)]
        inside = ", ".join(dict.fromkeys(word for word in words[1:] if word not in ("", words[0])))
        whole = f"{words[0]} ({inside})" if words[0] and inside else words[0] or inside
        return (whole if len(whole) <= MAX_LABEL else f"{whole[: MAX_LABEL - 1].rstrip()}…") or None


def _datetime(value: object) -> datetime:
    written = str(value).strip().removesuffix(" UTC")
    if isinstance(value, str) and not _NUMBER.fullmatch(written):
        with suppress(ValueError):
            return datetime.fromisoformat(written)
        with suppress(ValueError):
            return datetime.fromisoformat(_iso(written))
        return parsedate_to_datetime(written)
    seconds = float(written)
    for _ in range(3):  # of thousandths, millionths and billionths there are that many more
        if abs(seconds) > _SECONDS[1]:
            seconds /= 1_000
    if not _SECONDS[0] < abs(seconds) < _SECONDS[1]:
        raise ValueError(written)
    return datetime.fromtimestamp(seconds, UTC)


def _iso(written: str) -> str:
    """Return a date as ISO 8601 has it: from other orders, with the names of months, with am and pm."""

    def of_24_hours(found: re.Match[str]) -> str:
        hour = int(found[1]) if not found[4] else int(found[1]) % 12 + 12 * (found[4] in "pP")
        return f"{hour:02}:{found[2]}{found[3] or ''}"

    written = _TIME.sub(of_24_hours, " ".join(written.split()))
    written = re.sub(r"- ", "-", written.translate(_OF_DATES)) if not written.isascii() else written
    if day := _DAY.fullmatch(written):
        year, month, date_ = day[1] or day[6], day[2] or day[5], day[3] or day[4]
        return f"{year}-{month:0>2}-{date_:0>2}{day[7]}"
    if (named := _ENGLISH_DAY.fullmatch(written)) and (
        name := (named[1] or named[4])[:3].lower()
    ) in _MONTHS:
        day_of_month = named[2] or named[3]
        return f"{named[5]}-{_MONTHS.index(name) + 1:02}-{day_of_month:0>2}{named[6] or ''}"
    return written


# Files


@dataclass(eq=False)
class Source:
    """A file, or what is in a folder or an archive: names, with `/` in them, and sizes in bytes."""

    path: Path
    sizes: Mapping[str, int]
    _open: Callable[[str], IO[bytes]]
    _reading: Reading
    is_file: bool = False

    def names(self, *ends: str) -> list[str]:
        """Return the names with one of these endings, in order."""
        return sorted(name for name in self.sizes if name.lower().endswith(ends))

    def modified(self, name: str) -> float | None:
        """Return when a file of a folder was written last, in seconds since 1970."""
        path = self.path if self.is_file else self.path / name
        return path.stat().st_mtime if self.path.is_dir() or self.is_file else None

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file as bytes of UTF-8; what is damaged on the way ends it and is reported."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self._open(name))
                text: IO[bytes] = io.BufferedReader(_Recoded(file, name, self._reading), CHUNK)
            except _UNREADABLE as error:
                self._reading.report(name, f"cannot be read ({error})")
                text = io.BytesIO()
            yield text

    def lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield the lines of a file with their numbers from 1."""
        number = 0
        with self.stream(name) as stream:
            while line := stream.readline(MAX_VALUE):
                number += 1
                if not line.endswith(b"\n") and len(line) == MAX_VALUE:
                    while (rest := stream.readline(CHUNK)) and not rest.endswith(b"\n"):
                        pass
                    self._reading.report(f"{name}:{number}", "is longer than 32 MiB")
                else:
                    yield number, line

    def page(self, name: str) -> str | None:
        """Return the text of a page; None where it is none, which is reported."""
        with self.stream(name) as stream:
            content = stream.read(MAX_PAGE + 1)
            if len(content) > MAX_PAGE:
                self._reading.report(name, "is longer than 2 MB; split it")
                return None
            try:
                return self._reading.cleaned(content.decode()).replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                self._reading.report(name, f"byte {error.start} is not UTF-8; save it as UTF-8")
        return None


class _Recoded(io.RawIOBase):
    """What a file says as UTF-8 without a byte order mark, in lines that end with a line feed.

    What is read of it is counted.
    """

    _MARKS = (
        (codecs.BOM_UTF8, ""),
        (codecs.BOM_UTF32_LE, "utf-32-le"),  # it begins with that of UTF-16
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    )
    _UNMARKED = ((rb"(?:[^\0]\0){2}", "utf-16-le"), (rb"(?:\0[^\0]){2}", "utf-16-be"))
    """How ASCII begins in either, without a mark."""

    def __init__(self, file: IO[bytes], name: str, reading: Reading) -> None:
        self._file, self._name, self._reading = file, name, reading
        first = self._read()
        mark, name = next((pair for pair in self._MARKS if first.startswith(pair[0])), (b"", ""))
        if not mark:
            name = next((name for form, name in self._UNMARKED if re.match(form, first)), "")
        self._decoder = codecs.getincrementaldecoder(name)("replace") if name else None
        start = self._recoded(first[len(mark) :])
        self._has_old_ends = b"\r" in start[:-1] and b"\n" not in start  # of Macs before 2001, and Excel
        self._ready = memoryview(start.replace(b"\r", b"\n") if self._has_old_ends else start)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill a buffer; 0 at the end."""
        while not self._ready and (chunk := self._read()):
            recoded = self._recoded(chunk)
            self._ready = memoryview(recoded.replace(b"\r", b"\n") if self._has_old_ends else recoded)
        count = min(len(into), len(self._ready))
        into[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _read(self) -> bytes:
        try:
            chunk = self._file.read(CHUNK)
        except _UNREADABLE as error:
            self._reading.report(self._name, f"cannot be read further ({error})")
            return b""
        self._reading.done += len(chunk)
        return chunk

    def _recoded(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        return self._decoder.decode(chunk).encode("utf-8", "surrogatepass")


@contextmanager
def opened(path: Path, reading: Reading) -> Iterator[Source]:
    """Open a file, a folder or an archive to read what is in it.

    What leads out of a folder, or would if an archive were unpacked, is reported and passed over.

    Raises:
        SourceError: There is nothing that can be read, or an archive that would expand without end.
    """
    with ExitStack() as stack:
        try:
            source = _found(path, reading, stack)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise SourceError(path, f"the archive is damaged ({error})", "download it again") from error
        except OSError as error:
            remedy = "make it readable for you, or copy it"
            raise SourceError(path, f"it cannot be read ({error.strerror})", remedy) from error
        yield source


def _found(path: Path, reading: Reading, stack: ExitStack) -> Source:
    if path.is_dir():
        return _folder(path, reading)
    if not path.is_file():
        problem = "it is no file or folder" if os.path.lexists(path) else "there is nothing of this name"
        raise SourceError(path, problem, "name what the other program wrote")
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK" and zipfile.is_zipfile(path)
    if is_archive:
        return _archive(path, stack.enter_context(zipfile.ZipFile(path)), reading)
    return Source(
        path, {path.name: path.stat().st_size}, lambda _: path.open("rb"), reading, is_file=True
    )


def _folder(path: Path, reading: Reading) -> Source:
    sizes, root = dict[str, int](), os.path.realpath(path)

    def unreadable(error: OSError) -> None:
        reading.report(os.path.relpath(error.filename, path), f"cannot be read ({error.strerror})")

    for folder, folders, files in os.walk(path, onerror=unreadable):
        reading.leave("hidden files and folders", sum(name[0] == "." for name in (*folders, *files)))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for at in (Path(folder, name) for name in (*folders, *sorted(files)) if name[0] != "."):
            place = at.relative_to(path).as_posix()
            if at.is_symlink() and not Path(os.path.realpath(at)).is_relative_to(root):
                reading.report(place, "is a link that leads out of the folder")
            elif at.name in files:
                status = at.stat() if at.exists() else None
                if status and stat.S_ISREG(status.st_mode) and at.suffix.lower() == ".zip":
                    reading.report(place, _PACKED)
                elif status and stat.S_ISREG(status.st_mode):
                    sizes[place] = status.st_size
                else:
                    reading.report(place, "is no file that can be read")
    return Source(path, sizes, lambda name: (path / name).open("rb"), reading)


def _archive(path: Path, archive: zipfile.ZipFile, reading: Reading) -> Source:
    sizes, entries = dict[str, int](), dict[str, zipfile.ZipInfo]()
    for entry in archive.infolist():
        name = entry.filename.replace("\\", "/")  # of some programs on Windows
        parts = PurePosixPath(name).parts
        if entry.is_dir() or "__MACOSX" in parts:
            continue
        if ".." in parts or parts[0].endswith((":", "/")):
            reading.report(entry.filename, "has a name that leads out of the archive")
        elif stat.S_ISLNK(entry.external_attr >> 16):
            reading.report(entry.filename, "is a link")
        elif entry.flag_bits & _ENCRYPTED:
            reading.report(entry.filename, "is encrypted; unpack the archive and name the folder")
        elif name.lower().endswith(".zip"):
            reading.report(entry.filename, _PACKED)
        else:
            sizes[name], entries[name] = entry.file_size, entry
    size = path.stat().st_size
    if sum(sizes.values()) > max(size * _MAX_EXPANSION, _SMALL):
        problem = (
            f"its {counted(len(sizes), 'file')} would be {_MAX_EXPANSION} times as large as the archive"
        )
        raise SourceError(path, problem, "unpack it yourself if you trust it, and name the folder")
    return Source(path, sizes, lambda name: archive.open(entries[name]), reading)
