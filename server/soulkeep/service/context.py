"""What a conversation starts with: identity, instructions, notes, memories and recent threads."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from soulkeep.days import Days
from soulkeep.documents import DocumentName, Documents
from soulkeep.embedders.tokens import BYTES_PER_TOKEN, TokenCounter
from soulkeep.errors import DocumentError, InvalidInputError
from soulkeep.models import Memory, Options, Session, Thread
from soulkeep.repository import Repository
from soulkeep.search.questions import query_terms
from soulkeep.search.ranking import FITS
from soulkeep.search.words import split_words
from soulkeep.service.callers import MAX_LIMIT, MAX_QUERY, require_range, require_text
from soulkeep.service.document_index import MEMORY
from soulkeep.service.edits import has_promoted
from soulkeep.service.memories import Memories
from soulkeep.service.threads import WEIGHTIEST, unagreed_note
from soulkeep.service.upkeep import Background
from soulkeep.wording import DATA, command_line, counted, fenced, heading, one_line, plain, under_heading

NOTE = f"Parts with is_data are {DATA}."
"""Stands once in the structured form where a part is data."""

BYTES_OF_A_TOKEN = 4.5
"""A token of English prose. Where tokens are longer, as in code and names, the bytes are the limit, so
that a budget bounds an answer in characters too."""

_LONGEST = 100_000
"""How many characters of a document are looked at where not all of it fits."""

MAX_TOKENS = 20_000
"""How large a context may be: about what clients hand to a model before they put it into a file."""

_LEFT_OUT = 250
"""How many tokens, an eighth of a small budget, are kept free to say what was left out."""
_REST = "{} more: a larger max_tokens"
_FRAME = 31
"""The tokens of what stands around the parts in the structured form, the longer of the two, without the
digits of two numbers, which are a token each."""
_SHARE_OF_WINDOW = 20
"""The tokens in which it says how full the window is."""

# Shares of what the instructions leave, for a first round; the second gives what is left in this order.
_NOTES, _TODAY, _YESTERDAY, _MEMORIES, _MESSAGES, _THREADS = 0.34, 0.1, 0.06, 0.3, 0.12, 0.08

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


@dataclass(eq=False)
class Budget:
    """The room of a context, in tokens, and what has been spent of it.

    What a piece takes is counted as it stands in the text of an answer and as it stands in the
    structured form, whichever is more.
    """

    _tokens: TokenCounter
    room: int
    _has_data: bool = False

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
            (text,) = section.pieces
            near, far = text[:_LONGEST], text[_LONGEST:]
            if section.is_latest_last:
                near, far = text[-_LONGEST:], text[:-_LONGEST]
            section.pieces = near.splitlines()[:: -1 if section.is_latest_last else 1]
            section.pieces += [far] if far else []  # no context could hold it
        taken = set(section.taken)
        for place in range(len(section.pieces)):
            if place in taken:
                continue
            # The lines of a document stand together; other pieces stand for themselves.
            if not self._take(section, place, allowance) and section.is_document:
                return

    def _take(self, section: Section, place: int, allowance: float) -> bool:
        piece = section.pieces[place]
        if len(piece) > self.room * BYTES_OF_A_TOKEN:
            return False  # without a count, which for megabytes takes seconds
        cost = self.cost(piece, is_data=section.is_data)
        if not section.taken:
            structured = {"name": section.name, "source": section.source, "text": ""}
            structured |= {"is_data": "true"} if section.is_data else {}
            written = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
            note = self._count(NOTE) if section.is_data and not self._has_data else 0
            head = heading(section.name, section.source, *([DATA] if section.is_data else []))
            cost += max(self._count(f"\n{head}\n"), self._count(f"{written},") + note)
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

    def _count(self, text: str) -> int:
        by_bytes = -(-len(text.encode()) // BYTES_OF_A_TOKEN)
        return max(self._tokens.count(text), int(by_bytes))


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the context; `is_data` tells what is remembered from what is an instruction.

    `tokens` are what it takes, heading included, in the larger of the two channels of an answer.
    """

    name: str
    source: str
    text: str
    tokens: int
    is_data: bool


@dataclass(frozen=True, slots=True)
class Pressure:
    """How full the client's window is, 0 to 1, and from which share on there is something to save."""

    share: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Context:
    """Parts in order, what found no room and where it is, and documents that cannot be read.

    `kept` says how much is kept in all, `advice` what to save while the window fills. `tokens` are those
    of the parts; `is_exact` says if a tokenizer counted them or they are estimated.
    """

    parts: tuple[Part, ...]
    left_out: tuple[str, ...]
    kept: str
    advice: str
    unreadable: tuple[str, ...]
    tokens: int
    max_tokens: int
    is_exact: bool
    thread: Thread | None
    pressure: Pressure | None


@dataclass(eq=False)
class Contexts:
    """Assembles contexts."""

    _repository: Repository
    _documents: Documents
    _memories: Memories
    _background: Background
    _tokens: TokenCounter
    _days: Days
    _options: Options
    _announcement: str
    _path: Path

    def assemble(
        self,
        *,
        thread_id: str | None = None,
        query: str | None = None,
        max_tokens: int | None = None,
        used_tokens: int | None = None,
        window_tokens: int | None = None,
        session: Session | None = None,
    ) -> Context:
        """Put together what is worth most in `max_tokens` (100 to 20,000; a setting gives the default).

        First come SOUL.md, the global prompts in force by priority and the thread's own prompt, each
        whole; then MEMORY.md, today's and yesterday's log, memories one by one (those that fit the query
        or the thread's title, the thread's, the weightiest and latest of all), the thread's last
        messages, threads by title, and how much there is. Each of these has a share of the room; what
        one does not need goes to the others.

        Raises:
            InvalidInputError: An argument breaks a rule.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
        """
        limit = min(self._options.context_tokens, MAX_TOKENS) if max_tokens is None else max_tokens
        require_range("max_tokens", limit, 100, MAX_TOKENS)
        if query is not None:
            require_text("query", query, MAX_QUERY)
        pressure = None
        if used_tokens is not None and window_tokens is not None:
            require_range("window_tokens", window_tokens, 1, 10**9)
            require_range("used_tokens", used_tokens, 0, 10**9)
            pressure = Pressure(used_tokens / window_tokens, self._options.pressure)
        elif (used_tokens, window_tokens) != (None, None):
            given, missing = ("window", "used") if used_tokens is None else ("used", "window")
            raise InvalidInputError(f"{missing}_tokens", f"must come with `{given}_tokens`")
        self._background.drop_expired()
        thread = None if thread_id is None else self._repository.threads.get_thread(thread_id)
        return self._filled(limit, thread, query, pressure, session)

    def _filled(
        self,
        limit: int,
        thread: Thread | None,
        query: str | None,
        pressure: Pressure | None,
        session: Session | None,
    ) -> Context:
        # Pieces that are put together may take some tokens more than each alone.
        budget = Budget(self._tokens, limit - limit // 50 - min(limit // 8, _LEFT_OUT))
        unreadable: list[str] = []
        instructions = list(self._instructions(thread, unreadable))
        notes, day = self._document(MEMORY, MEMORY, unreadable), self._documents.today()
        yesterday = self._document("Yesterday's log", day - timedelta(days=1), unreadable)
        today = self._document("Today's log", day, unreadable)
        budget.room -= _FRAME + 2 * len(str(limit)) + (_SHARE_OF_WINDOW if pressure else 0)
        said = _advice(pressure, thread)
        said = said if budget.cost(said) <= limit // 3 else said.partition(", in this order:")[0]
        kept = self._kept()
        for text in (kept, said, *unreadable):
            budget.room -= budget.cost(text)
        for section in instructions:
            budget.offer(section)
        messages, threads = self._messages(thread), self._threads(thread, query)
        shares = [(notes, _NOTES), (today, _TODAY), (yesterday, _YESTERDAY)]
        room = max(budget.room, 0)
        for section, share in shares:
            budget.offer(section, share * room)
        known = {section.source: section.text for section, _ in shares}
        memories = list(self._remembered(thread, query, known, session))
        shares += [(section, _MEMORIES / len(memories)) for section in memories]
        shares += [(messages, _MESSAGES), (threads, _THREADS)]
        for section, share in shares[3:]:
            budget.offer(section, share * room)
        budget.divide(shares)
        proposals = self._proposals()
        budget.offer(proposals)
        shown = [*instructions, notes, yesterday, today, *memories, messages, threads, proposals]
        return Context(
            parts=tuple(Part(s.name, s.source, s.text, s.tokens, s.is_data) for s in shown if s.taken),
            left_out=_named(budget, min(limit // 8, _LEFT_OUT), shown),
            kept=kept,
            advice=said,
            unreadable=tuple(unreadable),
            tokens=sum(section.tokens for section in shown),
            max_tokens=limit,
            is_exact=self._tokens.is_exact,
            thread=thread,
            pressure=pressure,
        )

    def _instructions(self, thread: Thread | None, unreadable: list[str]) -> Iterator[Section]:
        """Yield SOUL.md, the global prompts in force, and the thread's prompt or an agent's note.

        What cannot be read is added to `unreadable`.
        """
        soul = self._document("SOUL.md", "SOUL.md", unreadable)
        if soul.pieces:
            yield Section(soul.name, soul.source, soul.pieces, is_data=False)
        for prompt in self._repository.prompts.list_prompts():
            if prompt.in_force:
                name = plain(f"Global prompt: {prompt.name}")
                yield Section(name, "list_prompts", [prompt.content.strip()], is_data=False)
        if thread is not None and thread.system_prompt:
            source, agreed = f"soulkeep://threads/{thread.id}", thread.is_agreed
            name = "Prompt of the thread" if agreed else unagreed_note(thread.prompt_by)
            yield Section(name, source, [thread.system_prompt.strip()], is_data=not agreed)

    def _proposals(self) -> Section:
        """Return by their names the global prompts that agents proposed."""
        proposed = []
        for prompt in self._repository.prompts.list_prompts():
            if not prompt.is_agreed:
                words = ["soulkeep", "prompts", "activate", str(prompt.id), "--home", str(self._path)]
                proposed.append(f"{one_line(prompt.name)} (the user agrees with: {command_line(words)})")
        return Section("Proposed as global prompts by agents", "list_prompts", proposed)

    def _document(self, name: str, document: DocumentName | date, unreadable: list[str]) -> Section:
        section = Section(name, f"soulkeep://{document}", is_document=True)
        try:
            if isinstance(document, date):
                section.source, section.is_latest_last = f"soulkeep://daily/{document}", True
                text = self._documents.read_daily(document) or ""
            else:
                text = self._documents.read(document)
        except DocumentError as error:
            unreadable.append(str(error))
            return section
        section.pieces += [text.strip()] if text.strip() else []
        return section

    def _remembered(
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
            lines = []
            for m in new:
                about = f" ({one_line(m.subject)})" if m.subject else ""
                facts = f"#{m.id} {self._days.date_text(m.occurred_at)} {one_line(m.memory_type)}"
                lines.append(f"{facts}{about}: {one_line(m.content, _MEMORY)}")
            return Section(plain(name), "recall", lines)

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
        today, worth = self._documents.today(), dict[int, float]()
        for memory in memories:
            day = self._days.day_of(memory.occurred_at) or date.min
            age = max((today - day).days, 0)
            weight = WEIGHTS.get(memory.memory_type, 0.5)
            worth[memory.id] = weight * math.exp2(-min(age / HALF_LIFE, 1_000))
        return sorted(memories, key=lambda m: (worth[m.id], m.occurred_at, m.id), reverse=True)

    def _messages(self, thread: Thread | None) -> Section:
        """Return the last messages of a thread, the latest worth most."""
        found = self._repository.messages.list_of_thread(thread.id, MESSAGES) if thread else []
        source = f"soulkeep://threads/{thread.id}" if thread else ""
        section = Section("Last messages of the thread", source, is_latest_last=True)
        for m in reversed(found):
            said = f"{self._days.date_text(m.created_at)} {one_line(m.role)}"
            section.pieces.append(f"{m.id} {said}: {one_line(m.content, _MEMORY)}")
        return section

    def _threads(self, thread: Thread | None, query: str | None) -> Section:
        """Return threads to go on with: whose titles share words with a query, then the latest."""
        latest = self._repository.threads.list_threads(TITLES if query else THREADS, archived=None)
        words = set(query_terms(query)) if query else set()
        shared = {found: len(words.intersection(split_words(found.title))) for found in latest if words}
        fitting = sorted(filter(shared.get, shared), key=lambda found: -shared[found])
        active = [found for found in latest if not found.archived]
        listed = dict.fromkeys([*fitting[:THREADS], *active[:THREADS]])
        rest_at = "get_context(query), by words of their titles"
        section = Section("Threads to go on with", "get_context(thread_id)", rest_at=rest_at)
        for found in listed:
            if thread is None or found.id != thread.id:
                used = self._days.date_text(found.last_active_at)
                used += ", archived" if found.archived else ""
                section.pieces.append(f"{one_line(found.id)} {one_line(found.title)} (last used {used})")
        return section

    def _kept(self) -> str:
        """Say how much there is in all, and which documents are not or not wholly searched."""
        memories = sum(self._repository.memories.count_by_type().values())
        active, archived = self._repository.threads.count()
        facts = [counted(memories, "memory"), counted(active, "active thread")]
        facts += [f"{archived:,} archived"] if archived else []
        facts += [counted(len(self._documents.list_daily()), "daily log")]
        facts += [f"in a {self._announcement}"] if self._announcement else []
        remarks = [remark.rstrip(".") for remark in self._background.remarks()]
        return "; ".join([", ".join(facts), *remarks])


def _named(budget: Budget, room: int, sections: Iterable[Section]) -> tuple[str, ...]:
    """Return what can be said in some room of what was left out, and how much of it cannot."""
    left_out, said = [section.left_out for section in sections if not section.is_whole], 0
    room -= budget.cost(_REST.format(99))
    while said < len(left_out) and (room := room - budget.cost(f"{left_out[said]},")) >= 0:
        said += 1
    more = [_REST.format(len(left_out) - said)] if said < len(left_out) else []
    return (*left_out[:said], *more)


def _advice(pressure: Pressure | None, thread: Thread | None) -> str:
    """Say what to save before the window is full, the most perishable first; nothing while it is not."""
    if pressure is None or pressure.share <= pressure.threshold:
        return ""
    where = f", thread_id={thread.id}" if thread else ""
    again = f"get_context(thread_id={thread.id})" if thread else "get_context"
    return (
        f"Your window is {pressure.share:.0%} full, past {pressure.threshold:.0%}. Save now,"
        " in this order:\n"
        f"1. decisions of this conversation with their reasons: remember(memory_type=decision{where})\n"
        "2. facts and preferences of the user that are not kept yet: remember\n"
        f"3. the state of the work and the next step: remember(memory_type=summary{where}), log_day\n"
        f"Then a new conversation goes on from {again}."
    )


def _is_in_context(memory: Memory, known: Mapping[str, str]) -> bool:
    """Whether a memory is an entry of a document in the context, or was promoted to one."""
    if memory.document is not None:
        name = memory.document if memory.document == MEMORY else memory.document.removesuffix(".md")
        return memory.content.partition("\n")[0] in known.get(f"soulkeep://{name}", "")
    return has_promoted(known.get(f"soulkeep://{MEMORY}", ""), memory)
