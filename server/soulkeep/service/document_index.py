"""Entries of MEMORY.md and of the daily logs among the memories, in step with them.

A long document is read again without parsing what did not change in it.
"""

import hashlib
import logging
import math
import re
import secrets
import threading
import time as clocks
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from soulkeep.documents import Documents, log_name
from soulkeep.errors import DocumentError, StoreBusyError, StoreFullError, StoreNotWritableError
from soulkeep.models import Clock, Memory, MemoryType, NewMemory, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.search.words import same_title
from soulkeep.service.callers import Sessions
from soulkeep.service.indexes import Indexes, Vectors
from soulkeep.service.vectors import PAUSE_S
from soulkeep.wording import counted

if TYPE_CHECKING:
    from soulkeep.documents.markdown import Entry, Outline

_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_END = "# End"
_TRIES = 8
"""How many headings an open fence may reach over before the rest is parsed in one piece."""

_Read: TypeAlias = "tuple[list[Entry], Outline]"
"""The entries of a passage, and what stands in which the passage after it does."""


@dataclass(eq=False)
class Passages:
    """The passages of one document as it was read last: what stands from one heading up to another."""

    _known: "dict[tuple[str, Outline], _Read | None]" = field(default_factory=dict)

    def list_entries(self, text: str) -> "list[Entry]":
        """Return the entries of a document; their lines are counted from the head of their passage."""
        from soulkeep.documents.blocks import front_matter_lines, split_lines
        from soulkeep.documents.markdown import list_entries

        former, self._known = self._known, {}
        entries: list[Entry] = []
        outline: Outline = ()
        tries = 0
        begin = head = sum(map(len, (lines := split_lines(text))[: front_matter_lines(lines)]))
        for end in [*(match.start() for match in _HEADING.finditer(text, head)), len(text)]:
            key = text[begin:end], outline
            found = former[key] if key in former else _read_closed(*key)
            self._known[key] = found
            tries += 1
            if found is not None:
                entries += found[0]
                begin, tries, outline = end, 0, found[1]
            elif tries == _TRIES:
                break
        return entries + list_entries(text[begin:], outline)


def _read_closed(passage: str, outline: "Outline") -> "_Read | None":
    """Read a passage; None if a fence or the like in it goes on behind a heading."""
    from soulkeep.documents.blocks import split_lines
    from soulkeep.documents.markdown import list_entries, list_sections, within

    if passage.startswith("{"):  # the document's front matter was taken off before
        passage = "\n" + passage
    ended = passage + ("" if passage.endswith("\n") else "\n") + _END
    sections = list_sections(ended)
    if not sections or sections[-1].first != len(split_lines(ended)):
        return None
    entries = list_entries(ended, outline)
    for section in sections[:-1]:
        outline = within(outline, section.level, section.title)
    return entries, outline


LOOK_S = 5.0
"""In what time each log of a past day is looked at while nobody says that one changed."""

LOOKED = 200
"""How many of these a call looks at."""

MEMORY: Final = "MEMORY.md"


@dataclass(eq=False)
class DocumentLooks:
    """Says at each call which documents to look at: all at first, then those that may have changed."""

    _documents: Documents
    _indexed: Callable[[], Collection[str]]
    """Names the documents that are indexed, which may be gone."""
    _names: list[str] = field(default_factory=list)
    _listed: str | None = None
    _next: int = 0
    _looked: float = 0.0
    _all: bool = True
    _seen: Mapping[str, object] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)

    def note(self, names: Iterable[str] | None = None) -> None:
        """Look at these documents at the next call, or at all: they were changed."""
        if names is None:
            self._all = True
        else:
            self._noted |= {name for name in names if name == MEMORY or name.startswith("daily/")}

    def due(self) -> list[str]:
        """Return the documents to look at now: notes, today's log, then the others, latest first."""
        first = [MEMORY, log_name(self._documents.today())]
        noted, self._noted = self._noted, set()
        now, others = clocks.monotonic(), list[str]()
        if self._documents.texts.in_store:  # there one look tells whether any of them was changed
            before, self._seen = self._seen, self._documents.texts.stamps(["daily"])
            self._all = self._all or self._seen != before
        if self._all:
            self._all, self._listed, self._looked, self._next = False, None, now, 0
            self._list()
            others = self._names
        elif now - self._looked >= LOOK_S / max(math.ceil(len(self._names) / LOOKED), 1):
            self._looked = now
            former = set(self._names)
            self._list()
            part = self._names[self._next : self._next + LOOKED]
            self._next = self._next + LOOKED if self._next + LOOKED < len(self._names) else 0
            others = [*(name for name in self._names if name not in former), *part]
        return list(dict.fromkeys([*first, *sorted(noted, reverse=True), *others]))

    def _list(self) -> None:
        """List the logs anew, unless their folder says that it still has the same files."""
        texts = self._documents.texts
        at, _, is_settled = texts.stamps(["daily"]).get("daily", (None, 0, False))
        if at is not None and at == self._listed:
            return
        self._listed = at if is_settled else None
        logs = {*map(log_name, self._documents.list_daily())}
        self._names = sorted({*self._indexed(), *logs} - {MEMORY}, reverse=True)


_FACTS = "user facts/project context"
_PREFERENCES = """preferences/preference/user preferences/likes and dislikes/vorlieben/präferenzen
    /préférences/preferencias/preferenze/preferências/voorkeuren/preferencje/предпочтения
    /tercihler/偏好/喜好/好み/선호"""
_DECISIONS = """important decisions/decisions/key decisions/decision log/wichtige entscheidungen
    /entscheidungen/décisions importantes/décisions/decisiones importantes/decisiones
    /decisioni importanti/decisioni/decisões importantes/decisões/belangrijke beslissingen/beslissingen
    /besluiten/ważne decyzje/decyzje/важные решения/решения/önemli kararlar/kararlar/重要决定/决定
    /重要な決定/決定/중요한 결정"""
_TITLES: dict[MemoryType, str] = {"fact": _FACTS, "preference": _PREFERENCES, "decision": _DECISIONS}
_SECTION_TYPES = {
    same_title(title): memory_type
    for memory_type, titles in _TITLES.items()
    for title in " ".join(titles.split()).replace(" /", "/").split("/")
}
"""What the entries of a section are, and of all sections in it that have no type of their own."""

Key = tuple[str, str, str | None, str | None]
"""What tells an entry from others: its text, type and source, and its date where it has one."""


def entries_of(name: str, text: str, zone: tzinfo | None, passages: Passages) -> list[NewMemory]:
    """Return the entries of a document; `passages` has those of MEMORY.md as it was read before."""
    from soulkeep.documents.markdown import list_daily_entries

    if name == MEMORY:
        entries = passages.list_entries(text)
        return [_memory(name, entry.heading, entry.text, None, entry.outline) for entry in entries]
    day, found = date.fromisoformat(Path(name).stem), []
    for entry, at in list_daily_entries(day, text):
        try:
            moment = timestamp(datetime.combine(day, at or time(12), zone))
        except (ValueError, OverflowError):  # on the first or last day of the calendar
            moment = timestamp(datetime.combine(day, at or time(12), UTC))
        heading, outline = (entry.heading, entry.outline) if at is None else (f"{at:%H:%M}", ())
        found.append(_memory(name, heading, entry.text, moment, outline))
    return found


def keys_of(entries: Sequence[NewMemory | Memory]) -> list[Key]:
    """Return the key of each entry."""
    # An entry of MEMORY.md has no date of its own; it is dated by when it was first seen.
    return [
        (e.content, e.memory_type, e.source, e.occurred_at if e.document != MEMORY else None)
        for e in entries
    ]


def _memory(
    name: str, heading: str, text: str, occurred_at: str | None, outline: "Outline"
) -> NewMemory:
    from soulkeep.documents.blocks import plain_title

    titles = [same_title(plain_title(title)) for _, title in outline]
    types = [_SECTION_TYPES[title] for title in titles if title in _SECTION_TYPES]
    return NewMemory(
        content=text,
        memory_type=types[-1] if types else "fact" if name == MEMORY else "summary",
        source=f"{name}: {heading}" if heading else name,
        occurred_at=occurred_at,
        document=name,
    )


MAX_INDEXED = 2_000_000
"""Bytes of a document that are searched: some twenty thousand entries. What stands below is left out."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a document says, and the state of its file before it was read; without one where it is gone.

    A state is the file's stamp, or `young` while that cannot be relied on, and a digest of its text.
    """

    name: str
    state: str | None
    text: str


def read_document(documents: Documents, name: str) -> Reading:
    """Read a document, or find that it is gone.

    Raises:
        DocumentError: It cannot be read.
    """
    at, _, is_settled = documents.texts.stamps([name]).get(name, (None, 0, False))
    if at is None:
        return Reading(name, None, "")
    text = (
        documents.read("MEMORY.md")
        if name == MEMORY
        else documents.read_daily(date.fromisoformat(Path(name).stem)) or ""
    )
    if len(text) > MAX_INDEXED or len(text.encode()) > MAX_INDEXED:
        text = text[:MAX_INDEXED].encode()[:MAX_INDEXED].decode(errors="ignore")
        text = text[: text.rfind("\n") + 1] or text
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return Reading(name, f"{at if is_settled else 'young'} {digest}", text)


def list_too_long(documents: Documents) -> list[tuple[str, int]]:
    """Return the documents of which only the beginning is searched, with their sizes in bytes."""
    names = [MEMORY, *map(log_name, documents.list_daily())]
    stamps = documents.texts.stamps(names)
    return [(name, size) for name, (_, size, _) in stamps.items() if size > MAX_INDEXED]


_UNREAD = "unread"
_PAGE = 500

_log = logging.getLogger(__name__)


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
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._is_beside = False
        self._looks = DocumentLooks(documents, lambda: repository.documents.states())
        self.note_change = self._looks.note
        self._waiting: dict[str, None] = {}
        self._too_long: dict[str, int] = {}
        self._told: dict[str, str] = {}
        self._passages = Passages()

    def catch_up(self, seconds: float | None = None) -> bool:
        """Index what changed in the files since any process last did, unless another one is writing.

        A file that cannot be read keeps the entries it had. After so many seconds the rest is left for
        the next time (see `remarks`); return whether there is more to do.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: A text cannot be embedded.
        """
        self.look()
        with self._lock:
            self._is_beside = seconds is not None
            end = math.inf if seconds is None else clocks.monotonic() + seconds
            for name in list(self._waiting):
                if clocks.monotonic() > end or self._indexes.closing.is_set():
                    break
                if not self._read_and_index(name):
                    break  # others are writing: it waits for the next time
                self._waiting.pop(name, None)
            return bool(self._waiting)

    def look(self) -> bool:
        """Note which files changed since any process last indexed them; return whether there are any.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._looking:
            names = self._looks.due()
            known, stamps = self._repository.documents.states(names), self._documents.texts.stamps(names)
            for name in names:
                (at, size, _), state = stamps.get(name, (None, 0, False)), known.get(name)
                if size > MAX_INDEXED:
                    self._too_long[name] = size
                else:
                    self._too_long.pop(name, None)
                is_known = state is not None and at is not None and state.startswith(f"{at} ")
                if not is_known and (at, state) != (None, None):
                    self._waiting[name] = None
            return bool(self._waiting)

    def remarks(self) -> list[str]:
        """Return what to know of an answer: which documents it may lack, in sentences."""
        said = []
        if waiting := len(self._waiting):
            said.append(f"{counted(waiting, 'document')} still to be indexed: an answer may lack them.")
        for name, size in sorted(self._too_long.items()):
            part = f"{MAX_INDEXED / 1e6:g} of {size / 1e6:,.1f} MB"
            said.append(f"{name} is long: only its first {part} are searched.")
        return said

    def reread(self) -> tuple[int, list[str]]:
        """Read every document, whatever is known of it; return how many, and which were not read.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: A text cannot be embedded.
        """
        with self._repository.transaction():
            for name in self._repository.documents.states():
                self._repository.documents.put_state(name, _UNREAD)
        self.note_change()
        self.catch_up()
        states = self._repository.documents.states()
        unread = [name for name, state in states.items() if state == _UNREAD]
        return len(states) - len(unread), unread

    def _read_and_index(self, name: str) -> bool:
        """Index what changed in a document; return False where that has to wait for others who write."""
        known = self._repository.documents.states([name]).get(name)
        try:
            reading = read_document(self._documents, name)
        except DocumentError as error:
            self._tell_once(name, f"not indexed: {error}")
            return True
        if reading.state == known:
            return True
        tell("Indexing documents")
        gone, added = self._difference(reading, known)
        try:
            self._index(reading, known, gone, added)
        except StoreBusyError:
            return False
        except (StoreNotWritableError, StoreFullError) as error:
            self._tell_once(name, f"{name} is not indexed: {error}")
        else:
            self._told.pop(name, None)
        return True

    def _tell_once(self, name: str, message: str) -> None:
        if self._told.get(name) != message:
            self._told[name] = message
            _log.warning("%s", message)

    def _index(
        self, reading: Reading, known: str | None, gone: Sequence[int], added: Sequence[NewMemory]
    ) -> None:
        """Write the entries that came and went; those of a long document in several transactions."""
        part = f"part {secrets.token_hex(8)}"
        for begin in range(0, max(len(added), 1), _PAGE):
            page, is_last = added[begin : begin + _PAGE], begin + _PAGE >= len(added)
            vectors: Vectors = [None] * len(page)
            if page and not self._is_beside:  # there is a thread for what waits
                vectors = self._indexes.embed_new(page, self._sessions.current())[1]
            with self._repository.transaction(durable=False, waiting=False):
                # Another process may have done it meanwhile, perhaps for a newer text. Where the state
                # is the known one, so are the entries: it holds the digest of what they are from.
                if self._repository.documents.states([reading.name]).get(reading.name) != known:
                    return
                self._repository.memories.delete_memories(gone)
                if page:
                    now, embedder = timestamp(self._clock()), self._indexes.embedder_identity
                    self._repository.memories.add_memories(page, vectors, now, embedder)
                known = reading.state if is_last else part
                self._repository.documents.put_state(reading.name, known)
            gone = ()
            if not is_last and self._indexes.closing.wait(PAUSE_S):
                return  # whoever comes next finds the state of a part and goes on

    def _difference(self, reading: Reading, known: str | None) -> tuple[list[int], list[NewMemory]]:
        """Return the ids of entries that are no longer in the file, and what is new in it."""
        state = reading.state
        if state and known and state.rpartition(" ")[2] == known.rpartition(" ")[2]:
            return [], []  # by its digest the text is the same
        zone = self._documents.timezone
        entries = entries_of(reading.name, reading.text, zone, self._passages) if reading.state else []
        keys = keys_of(entries)
        wanted = Counter(keys)
        gone = []
        kept = self._repository.documents.list_entries(reading.name)
        for memory, key in zip(kept, keys_of(kept), strict=True):
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
