"""From candidates to an ordered answer: pure functions, no store, no model.

The score of a memory is the share of the question that its words cover, each word weighing by its rarity
in this store, plus what BM25, the vectors, the subject, the date and the neighbours in its thread say.
For a question about the user it is how well the memory fits that. A memory whose id is named is first.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache
from itertools import compress
from operator import mul

from soulkeep.about_user import Asked, user_fit
from soulkeep.dates import DateSpan, date_score, has_time_word, names_day
from soulkeep.days import Days
from soulkeep.models import Match, Memory
from soulkeep.words import STOP_WORDS, split_query, split_words

MAX_TERMS = 64
"""Words of a query that are looked up; the rest of a longer one is left out."""

MAX_OCCURRENCES = 5_000
"""Occurrences of words that BM25 reads in a few milliseconds."""

# The weights of the score. They were chosen together on dialogues between two people, and the optimum is
# flat: one alone, half or half as much again, changes little. `bench/quality.py` measures them.
BM25 = 0.1
BM25_LONG = 0.3
SUBJECT = 0.45
DATE = 0.2
ON_THE_DAY = 0.05
TIME_WORD = 0.1
QUESTION = -0.15
THREAD = 0.5
THREAD_BEST = 3
PREVIOUS = 0.5
PREVIOUS_QUESTION = 0.8
NEXT = 0.3

# How sure it is that a memory answers: what its vectors and its words say together, against what chance
# brings up among so many memories. `bench/quality.py` measures how often it is right.
CHANCE = 0.27
CHANCE_GROWTH = 0.064
CHANCE_MOST = 0.7
EVEN = 0.6
STEEPNESS = 3.0

FITS = 1 / (1 + math.exp(STEEPNESS * EVEN))
"""The relevance from which on a memory fits a question: more is not what chance brings up."""

ABOUT_USER = 2.0
"""What a memory scores that fits a question about the user: more than others can."""

NAMED_ID = 10.0
"""What a memory scores whose id is named: more than any other can."""

SHORT_WORDS, LONG_WORDS = 40, 100
"""From short memories to long ones, in distinct words: long ones need term frequency and length."""

SAME = 0.999
"""From this strength on, of 0 to 1, two words are the same word; floats are not exact."""

Strengths = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[Sequence[float]]]
"""For each text, how well it has each query word: 1 for the word itself, down to 0."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query as the ranking needs it: its words with their weights, its dates, and if it asks when.

    `ids` are those of memories that it names; `about_user` is what it asks of the user, if it does;
    `stored` is how many memories there are.
    """

    weights: Mapping[str, float]
    dates: Sequence[DateSpan] = ()
    asks_when: bool = False
    ids: Collection[int] = ()
    about_user: Asked | None = None
    stored: int = 1


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the store found: memories by id (neighbours too), scores by id, and who stands beside whom.

    `bm25` is larger for better matches; `semantic` is what the vectors say, weighed by the embedder, and
    about 1 for a memory that says what was asked. A candidate is in one of them or both. `days` tell on
    which day a memory happened.
    """

    memories: Mapping[int, Memory]
    bm25: Mapping[int, float]
    semantic: Mapping[int, float]
    neighbours: Mapping[int, tuple[int | None, int | None]] = field(default_factory=dict)
    days: Days = field(default_factory=lambda: Days(UTC))


def query_terms(query: str) -> list[str]:
    """Split a query into distinct words without stop words, at most 64.

    A query of nothing but stop words keeps them, so that "The Who" still finds something.
    """
    words = list(dict.fromkeys(split_query(query)))
    return ([word for word in words if word not in STOP_WORDS] or words)[:MAX_TERMS]


def inverse_document_frequency(count: int, frequency: int) -> float:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)), Robertson and Spärck Jones's weight, positive."""
    return math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))


def affordable(frequencies: Mapping[str, int], count: int) -> list[str]:
    """Return the words to look up among `count` memories: all but the most frequent of a large store.

    The rarest words come first, as long as they occur in at most 5,000 memories together, or in one in
    fifty; the rarest is always among them. What only the others would find scores low.
    """
    room = max(MAX_OCCURRENCES, count // 50)
    chosen: list[str] = []
    for term in sorted(frequencies, key=frequencies.__getitem__):
        room -= frequencies[term]
        if room < 0 and chosen:
            break
        chosen.append(term)
    return chosen


def text_words(content: str, subject: str | None, day: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct words of a memory: its content, its subject and the words of its day."""
    about = split_words(subject) if subject else ()
    return tuple(dict.fromkeys((*split_words(content), *about, *day)))


def exact_strengths(query: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """Match words by equality alone: the Strengths of a search without an embedder."""
    sets = [set(text) for text in texts]
    return [[float(word in text) for word in query] for text in sets]


@dataclass(frozen=True, slots=True)
class _Cover:
    """How much of the question a memory has (0..1): by the very words, by near ones, with neighbours."""

    exact: float
    own: float
    whole: float


def rank(
    question: Question,
    candidates: Candidates,
    words: Mapping[int, Sequence[str]],
    strengths: Strengths,
    limit: int,
) -> list[Match]:
    """Order the candidates, best first, and return at most `limit` of them; equal scores newer first.

    `words` are those of every memory in `candidates`.
    """
    covers = _coverage(question, candidates, words, strengths)
    parts = {i: _parts(i, question, candidates, cover) for i, cover in covers.items()}
    long = _clip((_mean(len(words[i]) for i in parts) - SHORT_WORDS) / (LONG_WORDS - SHORT_WORDS))
    best = max(candidates.bm25.values(), default=0.0) or 1.0
    named = _named_subject(question, candidates, parts)
    for i, part in parts.items():
        if question.about_user and covers[i].own:
            continue
        part.lexical += (BM25 + BM25_LONG * long) * candidates.bm25.get(i, 0.0) / best
        part.semantic += candidates.semantic.get(i, 0.0)
        if named and (subject := candidates.memories[i].subject):
            part.subject = SUBJECT if _words_of_subject(subject) == named else 0.0
    if not question.about_user:
        _lift_threads(parts, candidates)
    for i in parts.keys() & set(question.ids):
        covers[i], parts[i].lexical = _Cover(1.0, 1.0, 1.0), NAMED_ID
    ordered = sorted(parts, key=lambda i: (-parts[i].score, -i))[:limit]
    return [
        Match(
            candidates.memories[i],
            parts[i].score,
            _relevance(i, question, candidates, covers[i]),
            parts[i].shares(),
        )
        for i in ordered
    ]


def _relevance(i: int, question: Question, candidates: Candidates, cover: _Cover) -> float:
    """Return how likely a memory answers the question, 0 to 1.

    A logistic function of what its vectors and its words say beyond what chance brings up, which grows
    with the logarithm of the number of memories.
    """
    if question.about_user or i in question.ids:
        return cover.own
    if not candidates.semantic:
        return cover.whole
    chance = min(CHANCE + CHANCE_GROWTH * math.log(max(question.stored, 1)), CHANCE_MOST)
    beyond = cover.own + candidates.semantic.get(i, 0.0) - chance
    return 1 / (1 + math.exp(STEEPNESS * (EVEN - beyond)))


@dataclass(slots=True)
class _Parts:
    lexical: float = 0.0
    semantic: float = 0.0
    subject: float = 0.0
    date: float = 0.0
    neighbour: float = 0.0
    penalty: float = 0.0

    @property
    def score(self) -> float:
        positive = self.lexical + self.semantic + self.subject + self.date + self.neighbour
        return positive + self.penalty

    def shares(self) -> dict[str, float]:
        names = ("lexical", "semantic", "subject", "date", "neighbour")
        values = {name: max(getattr(self, name), 0.0) for name in names}
        total = sum(values.values())
        return {name: value / total for name, value in values.items() if value > 0}


def _coverage(
    question: Question,
    candidates: Candidates,
    words: Mapping[int, Sequence[str]],
    strengths: Strengths,
) -> dict[int, _Cover]:
    if question.about_user:
        fits = {i: user_fit(question.about_user, memory) for i, memory in candidates.memories.items()}
        return {
            i: _Cover(fits[i], fits[i], fits[i])
            for i in candidates.bm25.keys() | candidates.semantic.keys()
        }
    ids = list(candidates.memories)
    rows = strengths(list(question.weights), [words[i] for i in ids])
    matched = dict(zip(ids, rows, strict=True))
    total = sum(question.weights.values()) or 1.0
    weights = [weight / total for weight in question.weights.values()]
    covers = {}
    for i in candidates.bm25.keys() | candidates.semantic.keys():
        own = matched[i]
        whole = share = sum(map(mul, weights, own))
        beside = list(_neighbour_rows(i, candidates, matched))
        if beside:
            whole = sum(map(mul, weights, map(max, own, *beside)))
        exact = sum(compress(weights, map(SAME.__le__, own)))
        covers[i] = _Cover(exact, share, whole)
    return covers


def _neighbour_rows(
    i: int, candidates: Candidates, matched: Mapping[int, Sequence[float]]
) -> Iterable[list[float]]:
    before, after = candidates.neighbours.get(i, (None, None))
    if before is not None:
        asked = "?" in candidates.memories[before].content[-40:]
        weight = PREVIOUS_QUESTION if asked else PREVIOUS
        yield [weight * strength for strength in matched[before]]
    if after is not None:
        yield [NEXT * strength for strength in matched[after]]


def _parts(i: int, question: Question, candidates: Candidates, cover: _Cover) -> _Parts:
    memory = candidates.memories[i]
    parts = _Parts(
        lexical=min(cover.exact, cover.own) * (ABOUT_USER if question.about_user else 1.0),
        semantic=max(cover.own - cover.exact, 0.0),
        neighbour=cover.whole - cover.own,
    )
    if question.dates and (day := candidates.days.day_of(memory.occurred_at)):
        parts.date += DATE * date_score(question.dates, day)
        parts.date += ON_THE_DAY * names_day(question.dates, day)
    if question.asks_when and has_time_word(memory.content):
        parts.date += TIME_WORD
    if memory.content.rstrip().endswith("?"):
        parts.penalty = QUESTION
    return parts


def _named_subject(
    question: Question, candidates: Candidates, ids: Iterable[int]
) -> frozenset[str] | None:
    """Return the words of the one subject that the question names, if it names just one."""
    subjects = {subject for i in ids if (subject := candidates.memories[i].subject)}
    asked = question.weights.keys()
    named = {words for subject in subjects if (words := _words_of_subject(subject)) and words <= asked}
    return named.pop() if len(named) == 1 else None


@lru_cache(10_000)
def _words_of_subject(subject: str) -> frozenset[str]:
    return frozenset(split_query(subject))


def _lift_threads(parts: Mapping[int, _Parts], candidates: Candidates) -> None:
    """Let the best matches of a thread lift all of its candidates; global memories stand alone."""
    threads: defaultdict[str, list[int]] = defaultdict(list)
    for i in parts:
        if (thread_id := candidates.memories[i].thread_id) is not None:
            threads[thread_id].append(i)
    for ids in threads.values():
        best = sorted((parts[i].score for i in ids), reverse=True)[:THREAD_BEST]
        lift = THREAD * sum(score for score in best if score > 0) / THREAD_BEST
        for i in ids:
            parts[i].neighbour += lift


def _mean(values: Iterable[int]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
