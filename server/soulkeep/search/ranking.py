"""From candidates to an ordered answer: pure functions, no store, no model.

The score of a memory is the share of the question that its words cover, each word weighing by its rarity
in this store, plus what BM25, the vectors, the subject, the date, the neighbours in its thread and a
name in common with the best match say.
For a question about the user it is how well the memory fits that. A memory whose id is named is first.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache
from itertools import compress
from operator import mul
from typing import NamedTuple

from soulkeep.days import DateSpan, Days, date_score, names_day
from soulkeep.models import Match, Memory, Strengths
from soulkeep.search.dates import has_time_word
from soulkeep.search.questions import Asked, user_fit
from soulkeep.search.words import is_exact, split_query

# The weights of the score, chosen together on dialogues, short memories and sixteen languages. The
# optimum is flat: one alone, half or half as much again, changes little (`bench/quality.py`).
BM25 = 0.1
BM25_LONG = 0.3
BY_WORDS_ALONE = 4.0
"""How many times as much BM25 counts where there are no vectors."""

PROMISED_BM25 = 0.5
"""What BM25 counts beside the vectors while the words of the candidates are not read yet."""

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
NAMESAKE = 0.25
"""The share of the best score that lifts what has a name in common with the best match."""

RARE_NAME = 0.08
"""A name that more than this share of the candidates have leads nowhere."""

NAMED_IN = 4_000
"""In so many of a text's first characters names are looked for: they are kept in memory."""

OTHER_CODE = 0.6
"""What is lost at least of what the vectors say where a memory has none of the question's numbers."""

# How sure it is that a memory answers: what its vectors and words say together, against what chance
# brings up among n memories: CHANCE + CHANCE_GROWTH ln n, at most CHANCE_MOST. EVEN beyond, it is as
# likely as not, on a logistic curve (`bench/quality.py` measures how often it is right).
CHANCE = 0.27
CHANCE_GROWTH = 0.064
CHANCE_MOST = 0.7
EVEN = 0.6
STEEPNESS = 3.0

CHANCE_BY_WORDS = 0.15
"""The part of it that chance brings up where there are no vectors."""

FITS = 1 / (1 + math.exp(STEEPNESS * EVEN))
"""The relevance from which on a memory fits a question: more is not what chance brings up."""

ABOUT_USER = 6.0
"""What a memory scores that fits a question about the user: more than others can."""

NAMED_ID = 10.0
"""What a memory scores whose id is named: more than any other can."""

SHORT_WORDS, LONG_WORDS = 40, 100
"""From short memories to long ones, in distinct words: long ones need term frequency and length."""

_COUNT = re.compile("[0-9]{1,2}")
"""A number that counts, as in "my 3 cats", rather than names something."""

_OF_DATE = re.compile("[0-9]{1,4}|(?:19|20)[0-9]{6}|[qhw][0-9]{1,2}")
"""A number that says when, in a question with a date."""

_LETTERS = re.compile(r"[^\W\d_]{3,}")
_WITHIN = re.compile(r"[\w,] $")

SAME = 0.999
"""From this strength on, of 0 to 1, two words are the same word; floats are not exact."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query as the ranking needs it: its words with their weights, its dates, and if it asks when.

    `ids` are those of memories that it names; `about_user` is what it asks of the user, if it does;
    `stored` is how many memories there are, `text` the whole of it.
    """

    weights: Mapping[str, float]
    dates: Sequence[DateSpan] = ()
    asks_when: bool = False
    ids: Collection[int] = ()
    about_user: Asked | None = None
    stored: int = 1
    text: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the store found: memories by id (neighbours too), scores by id, and who stands beside whom.

    `bm25` is larger for better matches; `semantic` is the sum of cosines that the embedder weighs, about
    0.5 to 2.7 for what answers. A candidate is in one of them or both. `days` tell on which day a memory
    happened, `chance` by what to multiply CHANCE, for the embedder and the languages.
    """

    memories: Mapping[int, Memory]
    bm25: Mapping[int, float]
    semantic: Mapping[int, float]
    neighbours: Mapping[int, tuple[int | None, int | None]] = field(default_factory=dict)
    days: Days = field(default_factory=lambda: Days(UTC))
    chance: Mapping[int, float] = field(default_factory=dict)


def exact_strengths(query: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """Match words by equality alone: the Strengths of a search without an embedder."""
    sets = [set(text) for text in texts]
    return [[float(word in text) for word in query] for text in sets]


class _Cover(NamedTuple):
    """How much of the question a memory has (0..1): by the very words, by near ones, with neighbours.

    `lacking` is how little to trust its vectors (0..1), as it lacks numbers, versions and identifiers of
    the question: no vector tells 100218 from 100821.
    """

    exact: float
    own: float
    whole: float
    lacking: float = 0.0


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
    length = sum(len(words[i]) for i in parts) / max(len(parts), 1)
    long = min(max((length - SHORT_WORDS) / (LONG_WORDS - SHORT_WORDS), 0.0), 1.0)
    best = max(candidates.bm25.values(), default=0.0) or 1.0
    weight = (BM25 + BM25_LONG * long) * (1 if candidates.semantic else BY_WORDS_ALONE)
    named = _named_subject(question, candidates, parts)
    for i, part in parts.items():
        if question.about_user and covers[i].own:
            continue
        part.lexical += weight * candidates.bm25.get(i, 0.0) / best
        part.semantic += candidates.semantic.get(i, 0.0) * (1 - covers[i].lacking)
        if named and (subject := candidates.memories[i].subject):
            part.subject = SUBJECT if _words_of_subject(subject) == named else 0.0
    if not question.about_user:
        _lift_threads(parts, candidates)
        _lift_namesakes(parts, question, candidates)
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


def by_promise(
    memories: Mapping[int, Memory], bm25: Mapping[int, float], semantic: Mapping[int, float]
) -> list[int]:
    """Order what was found by what is known before its words are read, the most promising first."""
    best = max(bm25.values(), default=0.0) or 1.0
    scores = {i: semantic.get(i, 0.0) + PROMISED_BM25 * bm25.get(i, 0.0) / best for i in memories}
    threads: defaultdict[str | None, list[float]] = defaultdict(list)
    for i, score in scores.items():
        threads[memories[i].thread_id].append(score)
    lifts: dict[str | None, float] = {
        thread_id: THREAD * sum(sorted(some, reverse=True)[:THREAD_BEST]) / THREAD_BEST
        for thread_id, some in threads.items()
        if thread_id is not None
    }
    lifted = {i: score + lifts.get(memories[i].thread_id, 0.0) for i, score in scores.items()}
    return sorted(lifted, key=lambda i: (-lifted[i], -i))


def _relevance(i: int, question: Question, candidates: Candidates, cover: _Cover) -> float:
    """Return how likely a memory answers the question, 0 to 1.

    A logistic function of what its vectors and its words say beyond what chance brings up, which grows
    with the logarithm of the number of memories.
    """
    if question.about_user or i in question.ids:
        return cover.own
    chance = min(CHANCE + CHANCE_GROWTH * math.log(question.stored), CHANCE_MOST)
    told = 1 - cover.lacking
    chance *= candidates.chance.get(i, CHANCE_BY_WORDS)
    beyond = cover.own + told * candidates.semantic.get(i, 0.0) - chance
    return told / (1 + math.exp(STEEPNESS * (EVEN - beyond)))


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
    codes = [
        (weights[place], place)
        for place, word in enumerate(question.weights)
        if is_exact(word) and not (_OF_DATE if question.dates else _COUNT).fullmatch(word)
    ]
    all_codes = sum(weight for weight, _ in codes)
    covers = {}
    for i in candidates.bm25.keys() | candidates.semantic.keys():
        own = matched[i]
        whole = share = sum(map(mul, weights, own))
        beside = list(_neighbour_rows(i, candidates, matched))
        if beside:
            whole = sum(map(mul, weights, map(max, own, *beside)))
        exact = sum(compress(weights, map(SAME.__le__, own)))
        missed = sum(weight for weight, place in codes if not own[place])
        lacking = max(missed, OTHER_CODE * missed / all_codes) if missed else 0.0
        covers[i] = _Cover(exact, share, whole, lacking)
    return covers


def _neighbour_rows(
    i: int, candidates: Candidates, matched: Mapping[int, Sequence[float]]
) -> Iterable[Iterable[float]]:
    before, after = candidates.neighbours.get(i, (None, None))
    if before is not None and any(matched[before]):
        asked = "?" in candidates.memories[before].content[-40:]
        yield map((PREVIOUS_QUESTION if asked else PREVIOUS).__mul__, matched[before])
    if after is not None and any(matched[after]):
        yield map(NEXT.__mul__, matched[after])


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


def _lift_namesakes(parts: Mapping[int, _Parts], question: Question, candidates: Candidates) -> None:
    """Let the best match lift what has a name with it in common that the question does not have.

    "My husband's hobby" leads to "Joris and the user married", and that to what Joris likes.
    """
    first = max(parts, key=lambda i: (parts[i].score, i), default=None)
    if first is None:
        return
    memories, asked = candidates.memories, question.text.casefold()
    texts = {i: memory.content[:NAMED_IN] for i, memory in memories.items()}
    own = {name for name in _names(texts[first])[0] if name.casefold() not in asked}
    # Only texts that hold one of these names are read for theirs.
    names = {i: _names(text) for i, text in texts.items() if any(name in text for name in own)}
    certain = set().union(*(certain for _, certain in names.values()))
    often = Counter(name for every, _ in names.values() for name in every)
    shared = {name for name in own & certain if often[name] <= RARE_NAME * len(memories)}
    lift = NAMESAKE * max(parts[first].score, 0.0)
    for i, part in parts.items():
        if i != first and i in names and shared & names[i][0]:
            part.neighbour += lift


@lru_cache(10_000)
def _names(content: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what may be names in a text, by their capitals, and those that stand within a sentence."""
    words = ((match[0], match.start()) for match in _LETTERS.finditer(content))
    found = [(word, begin) for word, begin in words if word[0].isupper() and word[1:].islower()]
    within = (name for name, begin in found if _WITHIN.search(content, max(begin - 2, 0), begin))
    return frozenset(name for name, _ in found), frozenset(within)
