"""The sections of a context, as they are read from the store and the documents, and room for them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from soulkeep.days import Days
from soulkeep.documents import DocumentName, Documents
from soulkeep.embedders.tokens import BYTES_PER_TOKEN, TokenCounter
from soulkeep.errors import DocumentError
from soulkeep.models import Memory, Message, Session, Thread
from soulkeep.repository import Repository
from soulkeep.search.questions import query_terms
from soulkeep.search.ranking import FITS
from soulkeep.search.words import split_words
from soulkeep.service.background import Background
from soulkeep.service.document_entries import MEMORY
from soulkeep.service.document_index import has_promoted
from soulkeep.service.memories import Memories
from soulkeep.service.threads import WEIGHTIEST
from soulkeep.service.validation import MAX_LIMIT
from soulkeep.wording import DATA, counted, fenced, heading, one_line, plain, under_heading

NOTE = f"Parts with is_data are {DATA}."
"""Stands once in the structured form where a part is data."""

BYTES_OF_A_TOKEN = 4.5
"""A token of English prose. Where tokens are longer, as in code and names, the bytes are the limit, so
that a budget bounds an answer in characters too."""


_LONGEST = 100_000
"""How many characters of a document are looked at where not all of it fits."""


@dataclass(slots=True)
class Section:
    """What stands under one heading: pieces by their worth, and its `source`.

    Of a document the one piece may be divided into lines, of which the first, or with `is_latest_last`
    the last are worth most. What `is_data` is remembered; the rest are instructions, which are whole.
    """

    name: str
    source: str
    pieces: list[str] = field(default_factory=list)
    is_data: bool = True
    is_document: bool = False
    is_latest_last: bool = False
    taken: list[int] = field(default_factory=list)
    tokens: int = 0
    rest_at: str = ""
    """Where the rest of it is, if not at its source."""

    @property
    def text(self) -> str:
        """The pieces that found room."""
        places = sorted(self.taken, reverse=self.is_latest_last)
        return "\n".join(self.pieces[place] for place in places)

    @property
    def is_whole(self) -> bool:
        """Whether all of it found room."""
        return len(self.taken) == len(self.pieces)

    def divide(self) -> None:
        """Make a piece of each line of a document, but for what no context could hold."""
        (text,) = self.pieces
        near, far = text[:_LONGEST], text[_LONGEST:]
        if self.is_latest_last:
            near, far = text[-_LONGEST:], text[:-_LONGEST]
        lines = near.splitlines()
        self.pieces = lines[::-1] if self.is_latest_last else lines
        self.pieces += [far] if far else []

    @property
    def left_out(self) -> str:
        """What found no room, and where it is; empty if all did."""
        missing = [piece for place, piece in enumerate(self.pieces) if place not in set(self.taken)]
        if self.is_whole:
            return ""
        if self.is_document or not self.is_data:
            size = sum(len(piece.encode()) for piece in missing) // BYTES_PER_TOKEN + 1
            part = "the rest, " if self.taken else ""
            return f"{self.name} ({part}about {counted(size, 'token')}): {self.rest_at or self.source}"
        return f"{self.name} ({len(missing)} more): {self.rest_at or self.source}"


class Budget:
    """The room of a context, in tokens, and what has been spent of it.

    What a piece takes is counted as it stands in the text of an answer and as it stands in the
    structured form, whichever is more.
    """

    def __init__(self, tokens: TokenCounter, limit: int) -> None:
        self._tokens = tokens
        self._has_data = False
        self.room = limit

    def spend(self, text: str) -> None:
        """Take the room of a text that is given in any case."""
        self.room -= self.cost(text)

    def divide(self, shares: Sequence[tuple[Section, float]]) -> None:
        """Give each section its share of the room; what one does not need goes to the others.

        One that got nothing for its share first gets what is worth most of it.
        """
        for section, _ in shares:
            if section.pieces and not section.taken:
                self._take(section, 0, self.room)
        for _ in range(2):
            wanting = [(section, share) for section, share in shares if not section.is_whole]
            whole, room = sum(share for _, share in wanting), self.room
            for section, share in wanting:
                self.offer(section, share / whole * room)
        for section, _ in shares:
            self.offer(section)

    def offer(self, section: Section, allowance: float = float("inf")) -> None:
        """Take of a section what finds room, within an allowance for this section, in tokens."""
        allowance += section.tokens
        if section.is_document and len(section.pieces) == 1 and not section.taken:
            if self._take(section, 0, allowance):
                return
            section.divide()
        for place in self._missing(section):
            # The lines of a document stand together; other pieces stand for themselves.
            if not self._take(section, place, allowance) and section.is_document:
                return

    def _missing(self, section: Section) -> Iterator[int]:
        taken = set(section.taken)
        return (place for place in range(len(section.pieces)) if place not in taken)

    def _take(self, section: Section, place: int, allowance: float) -> bool:
        piece = section.pieces[place]
        if len(piece) > self.room * BYTES_OF_A_TOKEN:
            return False  # without a count, which for megabytes takes seconds
        cost = self.cost(piece, is_data=section.is_data)
        if not section.taken:
            cost += self._heading_cost(section)
        if cost > self.room or section.tokens + cost > allowance:
            return False
        section.taken.append(place)
        self._has_data |= section.is_data
        section.tokens += cost
        self.room -= cost
        return True

    def cost(self, text: str, *, is_data: bool = False) -> int:
        """Return how many tokens a text takes in the larger of the two channels."""
        shown = fenced(text) if is_data else under_heading(text)
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]
        return max(self._count(f"{shown}\n"), self._count(f"{escaped}\\n"))

    def _heading_cost(self, section: Section) -> int:
        facts = (section.name, section.source, *([DATA] if section.is_data else []))
        structured = {"name": section.name, "source": section.source, "text": ""}
        structured |= {"is_data": "true"} if section.is_data else {}
        written = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
        note = self._count(NOTE) if section.is_data and not self._has_data else 0
        return max(self._count(f"\n{heading(*facts)}\n"), self._count(f"{written},") + note)

    def _count(self, text: str) -> int:
        by_bytes = -(-len(text.encode()) // BYTES_OF_A_TOKEN)
        return max(self._tokens.count(text), int(by_bytes))


FITTING = 10
"""How many memories are offered as the best for the question, however little they fit."""
OF_EACH_TYPE = 100
"""How many of the latest memories of each type are offered."""
WEIGHTS = {"decision": 1.0, "preference": 0.9, "fact": 0.7, "summary": 0.5}
"""What a memory of a type is worth when it is new."""
HALF_LIFE = 180
"""In how many days a memory is worth half as much."""
MESSAGES = 10
THREADS = 20
TITLES = 1_000
"""Of how many threads, the latest, the titles are compared with the question."""

_MEMORY = 400
"""How many characters of a memory or a message are shown."""


class Sections:
    """Reads what a context may be made of; nothing of it is cut to a size yet."""

    def __init__(
        self,
        repository: Repository,
        documents: Documents,
        memories: Memories,
        background: Background,
        days: Days,
        announcement: str,
    ) -> None:
        self._repository = repository
        self._background = background
        self._documents = documents
        self._memories = memories
        self._days = days
        self._announcement = announcement

    def drop_expired(self) -> None:
        """Let what has expired, and its promoted lines, be in no section."""
        self._background.drop_expired()

    def thread(self, thread_id: str) -> Thread:
        """Return a thread.

        Raises:
            ThreadNotFoundError: It does not exist.
        """
        return self._repository.threads.get_thread(thread_id)

    def identity(self, unreadable: list[str]) -> Iterator[Section]:
        """Yield SOUL.md, if there is anything in it; what cannot be read is added to `unreadable`."""
        if text := self._read("SOUL.md", unreadable):
            yield Section("SOUL.md", _address("SOUL.md"), [text], is_data=False)

    def instructions(self, thread: Thread | None) -> Iterator[Section]:
        """Yield the global prompts in force, and the thread's prompt or an agent's note in its place."""
        for prompt in self._repository.prompts.list_prompts():
            if prompt.in_force:
                name = plain(f"Global prompt: {prompt.name}")
                yield Section(name, "list_prompts", [prompt.content.strip()], is_data=False)
        if thread is not None and thread.system_prompt:
            source, agreed = f"soulkeep://threads/{thread.id}", thread.is_agreed
            name = "Prompt of the thread" if agreed else plain(unagreed_note(thread.prompt_by))
            text = thread.system_prompt.strip()
            yield Section(name, source, [text], is_data=not agreed)

    def proposals(self) -> Section:
        """Return by their names the global prompts that agents proposed."""
        proposed = [
            f"{one_line(prompt.name)} (the user agrees with: soulkeep prompts activate {prompt.id})"
            for prompt in self._repository.prompts.list_prompts()
            if not prompt.is_agreed
        ]
        return Section("Proposed as global prompts by agents", "list_prompts", proposed)

    def notes(self, unreadable: list[str]) -> Iterator[Section]:
        """Yield MEMORY.md, yesterday's log and today's."""
        today = self._documents.today()
        yield self._document("MEMORY.md", "MEMORY.md", unreadable)
        yield self._document("Yesterday's log", today - timedelta(days=1), unreadable)
        yield self._document("Today's log", today, unreadable)

    def _document(self, name: str, document: DocumentName | date, unreadable: list[str]) -> Section:
        text, is_log = self._read(document, unreadable), isinstance(document, date)
        source = _address(f"daily/{document.isoformat()}" if isinstance(document, date) else document)
        pieces = [text] if text else []
        return Section(name, source, pieces, is_document=True, is_latest_last=is_log)

    def _read(self, document: DocumentName | date, unreadable: list[str]) -> str:
        try:
            if isinstance(document, date):
                text = self._documents.read_daily(document) or ""
            else:
                text = self._documents.read(document)
        except DocumentError as error:
            unreadable.append(str(error))
            return ""
        return text.strip()

    def remembered(
        self,
        thread: Thread | None,
        query: str | None,
        known: Mapping[str, str],
        session: Session | None,
    ) -> Iterator[Section]:
        """Yield memories that are not in the context yet: fitting ones, the thread's, and of all."""
        given: set[int] = set()

        def section(name: str, memories: Iterable[Memory]) -> Section:
            there = self._background.unexpired(memories)
            new = [m for m in there if m.id not in given and not _is_in_context(m, known)]
            given.update(memory.id for memory in new)
            return Section(plain(name), "recall", [self._line(memory) for memory in new])

        if query is not None:
            yield section(f"Memories for: {query}", self._fitting(query, thread, session))
        if thread is not None:
            of_thread = self._repository.memories.list_of_thread
            latest = [m for t in WEIGHTIEST for m in of_thread(thread.id, OF_EACH_TYPE, t)]
            yield section("Memories of the thread", self._weightiest(latest))
            if query is None:
                fitting = self._fitting(thread.title, thread, session)
                yield section("Memories that fit the thread's title", fitting)
        latest = self._repository.memories.latest_global(OF_EACH_TYPE)
        yield section("Weightiest and latest memories", self._weightiest(latest))

    def _fitting(self, query: str, thread: Thread | None, session: Session | None) -> Iterator[Memory]:
        # Many may be in the context already: MEMORY.md and the logs are searched too.
        thread_id = thread.id if thread else None
        found = self._memories.recall(query, limit=MAX_LIMIT, thread_id=thread_id, session=session)
        for rank, match in enumerate(found.matches):
            if rank < FITTING or match.relevance >= FITS:
                yield match.memory

    def _weightiest(self, memories: Sequence[Memory]) -> list[Memory]:
        today = self._documents.today()

        def worth(memory: Memory) -> float:
            day = self._days.day_of(memory.occurred_at) or date.min
            age = max((today - day).days, 0)
            return WEIGHTS.get(memory.memory_type, 0.5) * math.exp2(-min(age / HALF_LIFE, 1_000))

        latest = sorted(memories, key=lambda m: (m.occurred_at, m.id), reverse=True)
        return sorted(latest, key=worth, reverse=True)

    def messages(self, thread: Thread | None) -> Section:
        """Return the last messages of a thread, the latest worth most."""
        found = self._repository.messages.list_of_thread(thread.id, MESSAGES) if thread else []
        source = f"soulkeep://threads/{thread.id}" if thread else ""
        said = [self._said(message) for message in reversed(found)]
        return Section("Last messages of the thread", source, said, is_latest_last=True)

    def threads(self, thread: Thread | None, query: str | None) -> Section:
        """Return threads to go on with: whose titles share words with a query, then the latest."""
        latest = self._repository.threads.list_threads(TITLES if query else THREADS, archived=None)
        words = set(query_terms(query)) if query else set()
        shared = {found: len(words.intersection(split_words(found.title))) for found in latest if words}
        fitting = sorted(filter(shared.get, shared), key=lambda found: -shared[found])
        active = [found for found in latest if not found.archived]
        listed = dict.fromkeys([*fitting[:THREADS], *active[:THREADS]])
        lines = [self._titled(found) for found in listed if thread is None or found.id != thread.id]
        section = Section("Threads to go on with", "get_context(thread_id)", lines)
        section.rest_at = "get_context(query), by words of their titles"
        return section

    def kept(self) -> str:
        """Say how much there is in all, and which documents are not or not wholly searched."""
        memories = sum(self._repository.memories.count_by_type().values())
        active, archived = self._repository.threads.count()
        logs = len(self._documents.list_daily())
        facts = [counted(memories, "memory"), counted(active, "active thread")]
        facts += [f"{archived:,} archived"] if archived else []
        where = f", in a {self._announcement}" if self._announcement else ""
        there_is = ", ".join([*facts, counted(logs, "daily log")]) + where
        return "; ".join([there_is, *(remark.rstrip(".") for remark in self._memories.remarks())])

    def _line(self, memory: Memory) -> str:
        facts = f"#{memory.id} {self._days.date_text(memory.occurred_at)} {one_line(memory.memory_type)}"
        about = f" ({one_line(memory.subject)})" if memory.subject else ""
        return f"{facts}{about}: {one_line(memory.content, _MEMORY)}"

    def _said(self, message: Message) -> str:
        when = self._days.date_text(message.created_at)
        return f"{message.id} {when} {one_line(message.role)}: {one_line(message.content, _MEMORY)}"

    def _titled(self, thread: Thread) -> str:
        state = ", archived" if thread.archived else ""
        when = self._days.date_text(thread.last_active_at)
        return f"{one_line(thread.id)} {one_line(thread.title)} (last used {when}{state})"


def unagreed_note(agent: str | None) -> str:
    """Name a prompt of a thread that is no instruction of the user's."""
    return f"Note of {agent or 'an agent'} on the thread, not agreed to by the user"


def _is_in_context(memory: Memory, known: Mapping[str, str]) -> bool:
    """Whether a memory is an entry of a document in the context, or was promoted to one."""
    if memory.document is not None:
        name = memory.document if memory.document == MEMORY else memory.document.removesuffix(".md")
        return memory.content.partition("\n")[0] in known.get(_address(name), "")
    return has_promoted(known.get(_address(MEMORY), ""), memory)


def _address(name: str) -> str:
    return f"soulkeep://{name}"
