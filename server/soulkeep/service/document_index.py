"""Entries of MEMORY.md and of the daily logs among the memories, in step with their files."""

import hashlib
import logging
import re
import threading
import time as clocks
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soulkeep.documents import Documents
from soulkeep.errors import DocumentError, StoreBusyError, StoreFullError, StoreNotWritableError
from soulkeep.models import Clock, Memory, NewMemory, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.indexes import Indexes
from soulkeep.service.sessions import Sessions
from soulkeep.words import same_text, same_title

if TYPE_CHECKING:
    from soulkeep.documents.markdown import Outline
    from soulkeep.service.passages import Passages

SETTLED_S = 2.0
"""A file younger than this when it is read may change again without a sign in its date: FAT counts two
seconds."""

LOOK_S = 5.0
"""How often the logs of past days are looked at while nobody says that one changed."""

MEMORY: Final = "MEMORY.md"
_UNREAD = "unread"
_LINK = re.compile(r"\(\[memory (\d{1,18})\]\(soulkeep://memories/\1\)\)\s*\Z")
_SECTION_TYPES = {
    "user facts": "fact",
    "project context": "fact",
    "preferences": "preference",
    "important decisions": "decision",
}
"""What the entries of a section are, and of all sections in it that have no type of their own."""
_PAGE = 500

_log = logging.getLogger(__name__)

_Key = tuple[str, str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a document says, and the state of its file before it was read; without one where it is gone.

    A state is the file's stamp, or `young` while that cannot be relied on, and a digest of its text.
    """

    name: str
    state: str | None
    text: str

    def says_what(self, known: str | None) -> bool:
        """Whether the text is that of a known state."""
        return None not in (self.state, known) and _digest_of(self.state) == _digest_of(known)


class DocumentIndex:
    """Keeps the entries of documents among the memories; the files are what counts."""

    def __init__(
        self,
        repository: Repository,
        documents: Documents,
        indexes: Indexes,
        sessions: Sessions,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._documents = documents
        self._indexes = indexes
        self._sessions = sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = -LOOK_S
        self._told: dict[str, str] = {}
        self._passages: Passages | None = None

    def note_change(self) -> None:
        """Look at every file at the next call: one was changed."""
        self._looked = -LOOK_S

    def catch_up(self) -> None:
        """Index what changed in the files since any process last did, unless another one is writing.

        A file that cannot be read keeps the entries it had.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: A text cannot be embedded.
        """
        with self._lock:
            known = self._repository.documents.states()
            for name in self._names(known):
                at = stamp(self._path(name))
                if at is None and name not in known:
                    continue
                if at is None or not known.get(name, "").startswith(f"{at} "):
                    self._read_and_index(name, known.get(name))

    def reread(self) -> tuple[int, list[str]]:
        """Read every document, whatever is known of it; return how many, and which were not read.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: A text cannot be embedded.
        """
        with self._repository.transaction():
            for name in self._repository.documents.names():
                self._repository.documents.put_state(name, _UNREAD)
        self.note_change()
        self.catch_up()
        states = self._repository.documents.states()
        unread = [name for name, state in states.items() if state == _UNREAD]
        return len(states) - len(unread), unread

    def _names(self, known: Iterable[str]) -> list[str]:
        """Return the files to look at: all of them now and then, else those that change by the day."""
        if clocks.monotonic() - self._looked >= LOOK_S:
            self._looked = clocks.monotonic()
            logs = {_log_name(day.isoformat()) for day in self._documents.list_daily()}
            return [MEMORY, *sorted({*known, *logs} - {MEMORY})]
        return [MEMORY, _log_name(self._documents.today().isoformat())]

    def _path(self, name: str) -> Path:
        return self._documents.home / name

    def _read_and_index(self, name: str, known: str | None) -> None:
        try:
            reading = self._read(name)
        except DocumentError as error:
            self._tell_once(name, f"not indexed: {error}")
            return
        if reading.state == known:
            return
        tell("Indexing documents")
        entries = [] if reading.says_what(known) else self._entries(reading)
        gone, added = self._difference(reading, known, entries)
        try:
            self._index(reading, known, gone, added)
        except StoreBusyError:
            return
        except (StoreNotWritableError, StoreFullError) as error:
            self._tell_once(name, f"{name} is not indexed: {error}")
        else:
            self._told.pop(name, None)

    def _tell_once(self, name: str, message: str) -> None:
        if self._told.get(name) != message:
            self._told[name] = message
            _log.warning("%s", message)

    def _index(
        self, reading: _Reading, known: str | None, gone: Sequence[int], added: Sequence[NewMemory]
    ) -> None:
        embeddings = self._indexes.embed_new(added, self._sessions.current())[1] if added else ()
        with self._repository.without_waiting(), self._repository.transaction(durable=False):
            # Another process may have done it meanwhile, perhaps for a newer text. Where the state is
            # the known one, so are the entries: it holds the digest of what they are derived from.
            if self._repository.documents.states().get(reading.name) != known:
                return
            self._repository.memories.delete_memories(gone)
            if added and not self._repository.vectors.claim_embedder(self._indexes.embedder_identity):
                embeddings = [None] * len(added)
            for begin in range(0, len(added), _PAGE):
                page = slice(begin, begin + _PAGE)
                now = timestamp(self._clock())
                self._repository.memories.add_memories(added[page], embeddings[page], now)
            self._repository.documents.put_state(reading.name, reading.state)

    def _read(self, name: str) -> _Reading:
        at = stamp(self._path(name))
        if at is None:
            return _Reading(name, None, "")
        settled = abs(clocks.time_ns() - int(at.split(":")[0])) > SETTLED_S * 1e9
        text = self._documents.read("MEMORY.md") if name == MEMORY else self._log_text(name)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return _Reading(name, f"{at if settled else 'young'} {digest}", text)

    def _log_text(self, name: str) -> str:
        return self._documents.read_daily(_day_of(name)) or ""

    def _entries(self, reading: _Reading) -> list[NewMemory]:
        from soulkeep.documents.daily import list_daily_entries
        from soulkeep.service.passages import Passages

        name, zone = reading.name, self._documents.timezone
        if name == MEMORY:
            self._passages = self._passages or Passages()
            entries = self._passages.list_entries(reading.text)
            return [_memory(name, entry.heading, entry.text, None, entry.outline) for entry in entries]
        day = _day_of(name)
        return [
            _memory(
                name,
                entry.heading if at is None else f"{at:%H:%M}",
                entry.text,
                _moment(day, at or time(12), zone),
                entry.outline if at is None else (),
            )
            for entry, at in list_daily_entries(day, reading.text)
        ]

    def _difference(
        self, reading: _Reading, known: str | None, entries: Sequence[NewMemory]
    ) -> tuple[list[int], list[NewMemory]]:
        """Return the ids of entries that are no longer in the file, and what is new in it."""
        if reading.says_what(known):
            return [], []
        keys = [_key(entry) for entry in entries]
        wanted = Counter(keys)
        gone = []
        for memory in self._repository.documents.list_entries(reading.name):
            key = _key(memory)
            if wanted[key] > 0:
                wanted[key] -= 1
            else:
                gone.append(memory.id)
        added = []
        for key, entry in zip(keys, entries, strict=True):
            if wanted[key] > 0:
                wanted[key] -= 1
                added.append(entry)
        return gone, added


def link_to(memory_id: int) -> str:
    """Return the link that a line promoted from a memory ends with."""
    return f"([memory {memory_id}](soulkeep://memories/{memory_id}))"


def linked_id(entry: str) -> int | None:
    """Return the id of the memory that an entry ends with a link to, if it does."""
    match = _LINK.search(entry)
    return int(match[1]) if match else None


def without_link(entry: str) -> str:
    """Return an entry without the link that it ends with, if it does."""
    return _LINK.sub("", entry)


def promoted_text(content: str, section: str) -> str:
    """Return what a memory's text is in a section: without a mark of its own, unless it is a list."""
    from soulkeep.documents.markers import list_sent

    sent = list_sent(content, section)
    return sent[0] if len(sent) == 1 else content


def has_promoted(text: str, memory: Memory) -> bool:
    """Whether an entry of a text is the line that a memory was promoted to, and still says the same."""
    link = link_to(memory.id)
    end = text.find(link) + len(link)
    if end < len(link):
        return False
    said = promoted_text(memory.content, section="")
    line = f"{said} {link}"
    # The text may be indented in a list, but its words are the same.
    words = same_text(line).split()
    return same_text(text[max(0, end - 2 * len(line)) : end]).split()[-len(words) :] == words


def repeated_entries(memories: Mapping[int, Memory]) -> set[int]:
    """Return the ids of entries that were promoted from another one of these memories."""
    entries = [memory for memory in memories.values() if memory.document]
    origins = {entry.id: memories.get(linked_id(entry.content) or 0) for entry in entries}
    return {i for i, origin in origins.items() if origin and has_promoted(memories[i].content, origin)}


def stamp(path: Path) -> str | None:
    """Return what changes when a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"


def _memory(
    name: str, heading: str, text: str, occurred_at: str | None, outline: "Outline"
) -> NewMemory:
    from soulkeep.documents.markers import plain_title

    titles = [same_title(plain_title(title)) for _, title in outline]
    types = [_SECTION_TYPES[title] for title in titles if title in _SECTION_TYPES]
    return NewMemory(
        content=text,
        memory_type=types[-1] if types else "fact" if name == MEMORY else "summary",
        source=f"{name}: {heading}" if heading else name,
        occurred_at=occurred_at,
        document=name,
    )


def _key(entry: NewMemory | Memory) -> _Key:
    # An entry of MEMORY.md has no date of its own; it is dated by when it was first seen.
    dated = entry.occurred_at if entry.document != MEMORY else None
    return entry.content, entry.memory_type, entry.source, dated


def _log_name(day: str) -> str:
    return f"daily/{day}.md"


def _moment(day: date, at: time, zone: tzinfo | None) -> str:
    try:
        return timestamp(datetime.combine(day, at, zone))
    except (ValueError, OverflowError):  # on the first or last day of the calendar
        return timestamp(datetime.combine(day, at, UTC))


def _day_of(name: str) -> date:
    return date.fromisoformat(Path(name).stem)


def _digest_of(state: str | None) -> str:
    return (state or "").rpartition(" ")[2]
