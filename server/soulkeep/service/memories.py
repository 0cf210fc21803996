"""Keeping memories and bringing them back.

A recall waits for no embedder that is slow or down: its question is then embedded beside the answer.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import TypeVar

from soulkeep.days import Days
from soulkeep.embedders import Embedded, Embedder, strengths_of, usage_of
from soulkeep.errors import EmbedderError, InvalidInputError
from soulkeep.models import (
    Clock,
    Memory,
    MemoryFilter,
    MessageMatch,
    Mode,
    NewMemory,
    QueryVector,
    Recall,
    Session,
    Usage,
)
from soulkeep.repository import Repository
from soulkeep.search.dates import asks_when, day_words, find_dates
from soulkeep.search.questions import (
    MEANING,
    USER_FACTS,
    affordable,
    asks_about_user,
    inverse_document_frequency,
    named_ids,
    query_terms,
    text_words,
    user_terms,
)
from soulkeep.search.ranking import Candidates, Question, by_promise, exact_strengths, rank
from soulkeep.service.callers import (
    MAX_LIMIT,
    MAX_QUERY,
    RECALLED,
    Receipt,
    Sessions,
    parse_filter,
    require_range,
    require_text,
)
from soulkeep.service.document_index import MEMORY
from soulkeep.service.edits import repeated_entries
from soulkeep.service.indexes import Indexes, near
from soulkeep.service.lifecycle import Lifecycle
from soulkeep.service.upkeep import Background
from soulkeep.service.vectors import MAX_DELAY_S, delay_s

PATIENCE_S = 0.5
"""How long a recall waits for its question, unless the embedder is known to take longer."""

QUESTIONS = 100
"""How many embedded questions are kept, some 6 kB each, for those that are asked again."""

AT_ONCE = 4
"""How many questions are embedded at a time; more are not begun meanwhile."""

_Asked = tuple[str, str]


class Questions:
    """Has questions embedded: while the caller waits where that is quick, else beside the answer."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[_Asked, Embedded] = OrderedDict()
        self._under_way: dict[_Asked, Future[Embedded]] = {}
        self._took = 0.0
        self._failures = 0
        self._problem = ""
        self._not_before = clock()

    def embed(self, query: str, embedder: Embedder, session: Session) -> tuple[QueryVector | None, str]:
        """Embed a question; where that takes too long or fails, return None and a remark that says so.

        It is finished beside the answer then, and kept for the next time. A quick embedder is always
        waited for.

        Raises:
            EmbedderError: A quick embedder cannot embed the question.
        """
        if embedder.is_quick:
            embedded = embedder.embed_query(query)
            self._sessions.record(session, usage_of(embedder, embedded.tokens), flush=False)
            return _vector(query, embedder, embedded), ""
        found, remark = self._ask(query, embedder, session)
        return (None if found is None else _vector(query, embedder, found)), remark

    def _ask(self, query: str, embedder: Embedder, session: Session) -> tuple[Embedded | None, str]:
        key = embedder.identity, query
        with self._lock:
            if known := self._known.get(key):
                self._known.move_to_end(key)
                return known, ""
            asked = self._under_way.get(key)
            is_free = asked is None and len(self._under_way) < AT_ONCE
            if is_free and not (self._failures and self._clock() < self._not_before):
                asked = self._under_way[key] = Future()
                args = key, embedder, session, asked
                # A daemon: one that hangs keeps no process from ending.
                threading.Thread(target=self._finish, args=args, daemon=True).start()
            patience = PATIENCE_S if self._took <= PATIENCE_S else 0
        if asked is None:
            why = self._problem or "it is busy with other questions"
            return None, f"Search is by words alone, as the embedder has no answer now: {why}"
        try:
            return asked.result(patience), ""
        except TimeoutError:
            self._took = math.inf  # until one has taken less
            why = "the embedder takes long: asked again, the question is searched for by meaning too"
        except EmbedderError as error:
            why = str(error)
        return None, f"Search is by words alone, as {why.rstrip('.')}."

    def _finish(
        self, key: _Asked, embedder: Embedder, session: Session, asked: "Future[Embedded]"
    ) -> None:
        begun = time.monotonic()
        try:
            embedded = embedder.embed_query(key[1])
        except EmbedderError as error:
            with self._lock:
                del self._under_way[key]
                if error.position is None:
                    self._failures, self._problem = self._failures + 1, str(error)
                    delay = delay_s(self._failures, 1, MAX_DELAY_S, error.retry_after_s)
                    self._not_before = self._clock() + timedelta(seconds=delay)
            asked.set_exception(error)
            return
        with self._lock:
            del self._under_way[key]
            self._failures, self._problem, self._took = 0, "", time.monotonic() - begun
            self._known[key] = embedded
            while len(self._known) > QUESTIONS:
                self._known.popitem(last=False)
        asked.set_result(embedded)
        self._sessions.record(session, usage_of(embedder, embedded.tokens), flush=False)


def _vector(query: str, embedder: Embedder, embedded: Embedded) -> QueryVector:
    weightings = embedder.weightings(query)
    return QueryVector(
        embedded.embeddings[0],
        embedder.identity,
        embedder.parts,
        [weighting.parts for weighting in weightings],
        is_centred=all(weighting.base is None for weighting in weightings),
    )


MAX_CHARACTERS = 4_000_000
"""Characters of texts whose words are kept: 20,000 memories of usual length."""

BYTES_PER_CHARACTER = 10
"""How much memory those words take, about."""

_Key = tuple[str, str | None, str]
"""A memory's content, subject and time."""


@dataclass(eq=False)
class WordCache:
    """Words of texts, the latest met, up to a number of characters; threads may share it."""

    _days: Days
    most: int = MAX_CHARACTERS
    characters: int = 0
    _words: OrderedDict[_Key, tuple[str, ...]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def words_of(self, memories: Mapping[int, Memory]) -> dict[int, tuple[str, ...]]:
        """Return the words of each memory's text, subject and day, for ranking."""
        # Memories that were kept together share a time.
        said_on = cache(lambda moment: _words_of_day(self._days.day_of(moment)))
        with self._lock:
            found = {}
            for memory_id, memory in memories.items():
                key = memory.content, memory.subject, memory.occurred_at
                if (words := self._words.get(key)) is None:
                    day = said_on(memory.occurred_at)
                    words = self._words[key] = text_words(memory.content, memory.subject, day)
                    self.characters += len(memory.content)
                    while self.characters > self.most:
                        (gone, *_), _ = self._words.popitem(last=False)
                        self.characters -= len(gone)
                else:
                    self._words.move_to_end(key)
                found[memory_id] = words
            return found

    def release(self) -> None:
        """Give back the memory of the words."""
        with self._lock:
            self._words.clear()
            self.characters = 0


@lru_cache(10_000)
def _words_of_day(day: date | None) -> Sequence[str]:
    return day_words(day) if day else ()


LEXICAL_CANDIDATES = 60
VECTOR_CANDIDATES = 40
"""How many candidates each half of the search hands to the ranking; never fewer than the limit."""

FREQUENT_CANDIDATES = 30
"""How many it is of words that too many memories have to tell them apart; never fewer than the limit."""

WITH_NEIGHBOURS = 60
"""Beside how many of them, the most promising, neighbours in their threads are read; never fewer than
the limit. Those of the others would be most of what a recall reads, and change nothing."""

MESSAGES = 5
"""How many messages an answer holds where they are included."""


_Result = TypeVar("_Result")


@cache
def _helper() -> ThreadPoolExecutor:
    """Return the thread that searches by words while questions are embedded, one for all homes."""
    return ThreadPoolExecutor(1, "words")


def _beside(work: Callable[[], _Result]) -> Callable[[], _Result]:
    """Begin work in another thread; return what waits for its result, or raises what it raised.

    Where that thread is busy with another call it is not waited for.
    """
    begun = _helper().submit(work)

    @cache
    def result() -> _Result:
        return work() if begun.cancel() else begun.result()

    return result


@dataclass(eq=False)
class Memories:
    """The service behind `remember` and `recall`."""

    _repository: Repository
    _lifecycle: Lifecycle
    _indexes: Indexes
    _background: Background
    _sessions: Sessions
    _clock: Clock
    _days: Days
    _words: WordCache
    _questions: Questions

    def remember(
        self,
        memories: Sequence[NewMemory],
        session: Session | None = None,
        *,
        replaces: Sequence[int] = (),
    ) -> list[Receipt]:
        """Keep 1 to 1,000 memories in one transaction, all or none; return a receipt for each, in order.

        A memory that states exactly what an older one does (content, type, thread, subject, expiry and
        the date that was given) is not written again, wherever either comes from. Similar ones are
        looked for up to 20 memories. `replaces` names memories that a single new one supersedes, or the
        older one does that states the same: they leave recall for the trash. The id of an older version
        stands for the newest. An expiry that is a date is the end of that day.

        Raises:
            InvalidInputError: A memory breaks a rule, or `replaces` does; nothing is written.
            MemoryNotFoundError: One to be replaced does not exist.
            ThreadNotFoundError: A memory names a thread that does not exist.
            StoreError: The store cannot take them.
            EmbedderError: A text cannot be embedded.
        """
        if replaces and len(memories) != 1:
            raise InvalidInputError("replaces", "goes with a single memory; give the others apart")
        receipts = self._lifecycle.keep(lambda _: memories, replaces, session)
        self._background.note_work()
        return receipts

    def recall(
        self,
        query: str,
        *,
        limit: int = 10,
        thread_id: str | None = None,
        memory_type: str | None = None,
        since: str | None = None,
        until: str | None = None,
        include_messages: bool = False,
        session: Session | None = None,
    ) -> Recall:
        """Return up to `limit` (1 to 100) memories and entries of documents for a query, best first.

        With a thread, its own memories and the global ones are searched; `since` and `until` are ISO
        dates or times, both inclusive and the user's where they name no zone. Filters apply before the
        limit. Up to 5 messages of the thread, or without one of all threads, are found by their words
        if they are included.

        Raises:
            InvalidInputError: An argument breaks a rule.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
            EmbedderError: The query cannot be embedded.
        """
        session = session or self._sessions.current()
        require_text("query", query, MAX_QUERY)
        require_range("limit", limit, 1, MAX_LIMIT)
        allowed = parse_filter(thread_id, memory_type, since, until, self._days)
        if thread_id is not None:
            self._repository.threads.get_thread(thread_id)
        self._background.catch_up()
        by_words = _beside(lambda: self._by_words(query, allowed, limit))
        embedder, cosines, remark = self._compared(query, allowed, lambda: by_words()[1], limit, session)
        question, found = by_words()
        candidates = self._candidates(query, embedder, found, cosines, limit)
        matches = rank(
            question,
            candidates,
            self._words.words_of(candidates.memories),
            strengths_of(embedder) or exact_strengths,
            limit,
        )
        said: Sequence[MessageMatch] = ()
        if include_messages:
            said = self._repository.messages.matching(query_terms(query), allowed, MESSAGES)
        self._sessions.record(session, (RECALLED, {"matches": len(matches)}))
        mode: Mode = "hybrid" if embedder else "lexical"
        remarks = [*([remark] if remark else []), *self._background.remarks()]
        return Recall(tuple(matches), mode, tuple(said), self._indexes.advice, tuple(remarks))

    def rest(self) -> None:
        """Give back the memory that only searches need, after long disuse.

        Raises:
            StoreError: The store is gone.
        """
        self._indexes.rest(self._words.release)

    @property
    def memory_used(self) -> int:
        """How many bytes of what was read for searches are in memory, nearly."""
        return self._words.characters * BYTES_PER_CHARACTER + self._indexes.memory_used

    def release_memory(self) -> None:
        """Give back that memory; the next search reads again what it needs.

        Raises:
            StoreError: The store is gone.
        """
        self._words.release()
        self._indexes.release_memory()

    def _by_words(
        self, query: str, allowed: MemoryFilter, limit: int
    ) -> tuple[Question, dict[int, float]]:
        """Return what a query asks for, and the BM25 scores of what is found by its words."""
        question, terms, frequent = self._read(query)
        return question, self._found(question, terms, frequent, allowed, limit)

    def _read(self, query: str) -> tuple[Question, list[str], list[str]]:
        """Return what a query asks for, the words to look up, and those that too many memories have."""
        about_user = asks_about_user(query)
        terms = user_terms() if about_user else query_terms(query)
        count, frequencies = self._repository.memories.count_and_frequencies(terms)
        weights = {
            term: inverse_document_frequency(count, frequency) for term, frequency in frequencies.items()
        }
        question = Question(
            MEANING if about_user else weights,
            find_dates(query, self._days.local(self._clock())),
            asks_when(query),
            tuple(self._repository.changes.latest_ids(ids).values())
            if (ids := named_ids(query))
            else (),
            about_user,
            max(count, 1),
            query,
        )
        return question, *affordable(frequencies, count)

    def _found(
        self,
        question: Question,
        terms: Sequence[str],
        frequent: Sequence[str],
        allowed: MemoryFilter,
        limit: int,
    ) -> dict[int, float]:
        """Return the BM25 scores of the memories with the words, and 0 for what is found otherwise."""
        table, most = self._repository.memories, max(limit, LEXICAL_CANDIDATES)
        found = dict(table.matching(terms, allowed, most))
        if frequent:
            rarest, beside = frequent[0], [*frequent[1:], *terms]
            few = max(limit, FREQUENT_CANDIDATES)
            if beside and not question.about_user:  # whose words say the same
                found |= dict(table.matching_latest(rarest, beside, allowed, few))
            if not terms and len(found) < few:
                found = dict(table.matching_latest(rarest, (), allowed, few)) | found
            found = dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most])
        others = list(table.list_by_ids(question.ids, allowed)) if question.ids else []
        if question.about_user:
            others += [
                i
                for i, _ in table.matching(user_terms(in_subjects=True), allowed, most, in_subject=True)
            ]
            others += self._repository.documents.ids_of_source(MEMORY, USER_FACTS, allowed, most)
        return dict.fromkeys(others, 0.0) | found

    def _compared(
        self,
        query: str,
        allowed: MemoryFilter,
        also: Callable[[], Collection[int]],
        limit: int,
        session: Session,
    ) -> tuple[Embedder | None, Mapping[int, Sequence[float]], str]:
        """Return the cosines of the memories nearest to the query and of those in `also`, and whose.

        `also` is called once the question is embedded. Where that could not be done in time, a remark
        says so.
        """
        while True:
            embedder = self._indexes.embedder
            if embedder is None:
                self._sessions.record(session, Usage("none", 0), flush=False)
                return None, {}, ""
            vector, remark = self._questions.embed(query, embedder, session)
            if vector is None:
                return None, {}, remark
            cosines = self._repository.vector_search.compare(
                vector, allowed, max(limit, VECTOR_CANDIDATES), also()
            )
            # All may have been embedded anew meanwhile: those vectors do not compare, and none are told.
            if cosines or self._indexes.is_serving(embedder):
                return embedder, cosines, ""

    def _candidates(
        self,
        query: str,
        embedder: Embedder | None,
        bm25: Mapping[int, float],
        cosines: Mapping[int, Sequence[float]],
        limit: int,
    ) -> Candidates:
        """Read the memories that were found, and those beside the best of them in their threads."""
        table, unexpired = self._repository.memories, self._background.unexpired
        found = table.list_by_ids(list(bm25.keys() | cosines.keys()))
        memories = {memory.id: memory for memory in unexpired(found.values())}
        # A promoted memory is shown as itself, and its line only where the memory is not found.
        for i in repeated_entries(memories):
            del memories[i]
        # Another process may have taken away what was found a moment ago.
        bm25 = {i: score for i, score in bm25.items() if i in memories}
        weightings = {
            i: embedder.weighting(query, memories[i].content)
            for i in cosines
            if embedder and i in memories
        }
        semantic = {i: weightings[i].weigh(parts) for i, parts in cosines.items() if i in weightings}
        chance = {i: weighting.chance for i, weighting in weightings.items()}
        best = by_promise(memories, bm25, semantic)
        neighbours = table.neighbours(best[: max(limit, WITH_NEIGHBOURS)])
        beside = {i for pair in neighbours.values() for i in pair if i is not None} - found.keys()
        memories |= {m.id: m for m in unexpired(table.list_by_ids(list(beside)).values())}
        return Candidates(memories, bm25, semantic, near(neighbours, memories), self._days, chance)
