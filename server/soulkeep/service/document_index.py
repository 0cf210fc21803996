"""Entries of MEMORY.md and of the daily logs among the memories, in step with their files."""

import logging
import math
import re
import secrets
import threading
import time as clocks
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from soulkeep.documents import Documents
from soulkeep.errors import (
    DocumentError,
    StoreBusyError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.models import Clock, Memory, NewMemory, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.document_entries import (
    MAX_INDEXED,
    DocumentLooks,
    Passages,
    Reading,
    entries_of,
    keys_of,
    read_document,
    size_of,
    stamp,
)
from soulkeep.service.indexes import Indexes, Vectors
from soulkeep.service.sessions import Sessions
from soulkeep.service.vectors import PAUSE_S
from soulkeep.wording import counted, in_one_form

_UNREAD = "unread"
_LINK = re.compile(r"\(\[memory (\d{1,18})\]\(soulkeep://memories/\1\)\)\s*\Z")
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
        self._lock = threading.Lock()
        self._is_beside = False
        self._looks = DocumentLooks(documents, lambda: repository.documents.states())
        self._waiting: dict[str, None] = {}
        self._too_long: dict[str, int] = {}
        self._closed = threading.Event()
        self._told: dict[str, str] = {}
        self._passages = Passages()

    def note_change(self, names: Iterable[str] | None = None) -> None:
        """Look at these files at the next call, or at every one: they were changed."""
        self._looks.note(names)

    def catch_up(self, seconds: float | None = None) -> bool:
        """Index what changed in the files since any process last did, unless another one is writing.

        A file that cannot be read keeps the entries it had. After so many seconds the rest is left for
        the next time (see `remarks`); return whether there is more to do.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: A text cannot be embedded.
        """
        with self._lock:
            self._look()
            self._is_beside = seconds is not None
            end = math.inf if seconds is None else clocks.monotonic() + seconds
            for name in list(self._waiting):
                if clocks.monotonic() > end or self._closed.is_set():
                    break
                if not self._read_and_index(name):
                    break  # others are writing: it waits for the next time
                self._waiting.pop(name, None)
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

    def close(self) -> None:
        """Index nothing from now on: the store is being closed."""
        self._closed.set()

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

    def _look(self) -> None:
        names = self._looks.due()
        known = self._repository.documents.states(names)
        for name in names:
            at, state = stamp(self._path(name)), known.get(name)
            if at is not None and size_of(at) > MAX_INDEXED:
                self._too_long[name] = size_of(at)
            else:
                self._too_long.pop(name, None)
            is_known = state is not None and at is not None and state.startswith(f"{at} ")
            if not is_known and (at, state) != (None, None):
                self._waiting[name] = None

    def _path(self, name: str) -> Path:
        return self._documents.home / name

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
        for page, is_last in _pages(added):
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
                    self._repository.vectors.claim_embedder(self._indexes.embedder_identity)
                    now = timestamp(self._clock())
                    self._repository.memories.add_memories(page, vectors, now)
                known = reading.state if is_last else part
                self._repository.documents.put_state(reading.name, known)
            gone = ()
            if not is_last and self._closed.wait(PAUSE_S):
                return  # whoever comes next finds the state of a part and goes on

    def _difference(self, reading: Reading, known: str | None) -> tuple[list[int], list[NewMemory]]:
        """Return the ids of entries that are no longer in the file, and what is new in it."""
        if reading.says_what(known):
            return [], []
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
    from soulkeep.documents.blocks import list_sent

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
    words = in_one_form(line).split()
    return in_one_form(text[max(0, end - 2 * len(line)) : end]).split()[-len(words) :] == words


def repeated_entries(memories: Mapping[int, Memory]) -> set[int]:
    """Return the ids of entries that were promoted from another one of these memories."""
    entries = [memory for memory in memories.values() if memory.document]
    origins = {entry.id: memories.get(linked_id(entry.content) or 0) for entry in entries}
    return {i for i, origin in origins.items() if origin and has_promoted(memories[i].content, origin)}


def _pages(entries: Sequence[NewMemory]) -> Iterator[tuple[Sequence[NewMemory], bool]]:
    """Yield some entries after others, with whether they are the last; at least once."""
    for begin in range(0, max(len(entries), 1), _PAGE):
        yield entries[begin : begin + _PAGE], begin + _PAGE >= len(entries)
