"""How well recall finds short memories by meaning, and how well `relevance` tells what is known."""

import random
from collections.abc import Iterable, Sequence

from question_sets import (
    OTHER,
    Ask,
    Figures,
    Found,
    Question,
    QuestionSet,
    filled_store,
    found_by_kind,
    load_meaning,
    ranking_figures,
)
from soulkeep.models import EmbedderName
from soulkeep.search.ranking import FITS

FOLDS = 5
SMALL_STORES = (2, 5, 10, 30, 100)
BINS = 10
SEED = 1

FALSE_ALARMS = "false alarms"
RECOGNISED = "another subject, recognised"
UNKNOWN = "known or not, AUC"


def measure_meaning(
    embedder: EmbedderName, elsewhere: Sequence[str], url: str = ""
) -> tuple[Figures, Figures]:
    """Ask the meaning set; return how well answers are found, and how well `relevance` tells them.

    The queries `elsewhere` are of another set, whose answers the store does not have.
    """
    meaning = load_meaning()
    with filled_store(meaning.memories, embedder, url) as ask:
        kinds = found_by_kind(meaning.questions, ask)
        away = _bests(ask, [Question(query, OTHER) for query in elsewhere])
    other = [best_relevance(found) for found in kinds[OTHER]]
    answered = {kind: answers for kind, answers in kinds.items() if kind != OTHER}
    answered["all"] = [found for answers in answered.values() for found in answers]
    known = [best_relevance(found) for found in answered["all"]]
    sure = {
        UNKNOWN: _figure(auc(known, _bests_without_answers(meaning, embedder, url)), known),
        RECOGNISED: _figure(unfit_share(other), other),
        FALSE_ALARMS: _figure(unfit_share(known), known),
    }
    if away:
        sure["questions about the dialogues, recognised"] = _figure(unfit_share(away), away)
    for size in SMALL_STORES:
        sure |= _small_stores(meaning, embedder, size, url)
    sure |= _reliability([match for found in [*answered["all"], *kinds[OTHER]] for match in found])
    return {kind: ranking_figures(answers) for kind, answers in answered.items()}, sure


def best_relevance(found: Iterable[Found]) -> float:
    """Return how sure the service is of the memory it is most sure of; 0 if it found none."""
    return max((match.relevance for match in found), default=0.0)


def _bests(ask: Ask, questions: Iterable[Question]) -> list[float]:
    return [best_relevance(ask(question)) for question in questions]


def _figure(share: float, of: Sequence[object]) -> dict[str, float]:
    return {"of": len(of), "share": share}


def unfit_share(bests: Sequence[float]) -> float:
    """Return the share of the questions to which nothing fits, as recall says it."""
    return sum(best < FITS for best in bests) / len(bests)


def auc(known: Sequence[float], unknown: Sequence[float]) -> float:
    """Return the chance that one of the known exceeds one of the unknown; a tie counts half."""
    wins = sum((k > u) + (k == u) / 2 for k in known for u in unknown)
    return wins / (len(known) * len(unknown))


def _bests_without_answers(meaning: QuestionSet, embedder: EmbedderName, url: str) -> list[float]:
    """Ask each question of a store without its answers: five stores, each for a fifth of them."""
    bests: list[float] = []
    for fold in range(FOLDS):
        asked = meaning.answerable[fold::FOLDS]
        gone = frozenset[int]().union(*(question.answers for question in asked))
        kept = {number: memory for number, memory in meaning.memories.items() if number not in gone}
        with filled_store(kept, embedder, url) as ask:
            bests += _bests(ask, asked)
    return bests


def _small_stores(meaning: QuestionSet, embedder: EmbedderName, size: int, url: str) -> Figures:
    """Deal all memories out to stores of about `size`; ask each what it knows, and what another does."""
    chance = random.Random(SEED)  # noqa: S311 - repeatable stores
    shuffled = chance.sample(list(meaning.memories), len(meaning.memories))
    count = round(len(shuffled) / size)
    stores = [frozenset(shuffled[first::count]) for first in range(count)]
    asked = [[q for q in meaning.answerable if q.answers & store] for store in stores]
    known: list[float] = []
    unknown: list[float] = []
    for place, store in enumerate(stores):
        absent = [q for q in asked[place - 1] if not q.answers & store]
        if asked[place] or absent:
            kept = {number: meaning.memories[number] for number in store}
            with filled_store(kept, embedder, url) as ask:
                known += _bests(ask, asked[place])
                unknown += _bests(ask, absent)
    return {
        f"{FALSE_ALARMS} in stores of {size}": _figure(unfit_share(known), known),
        f"unknown in stores of {size}, recognised": _figure(unfit_share(unknown), unknown),
    }


def _reliability(matches: Sequence[Found]) -> Figures:
    """Return how often memories are right, by relevance, and how far it is from that on average."""
    figures: Figures = {}
    distance = 0.0
    for place in range(BINS):
        inside = [m for m in matches if min(int(m.relevance * BINS), BINS - 1) == place]
        if inside:
            right = sum(match.is_right for match in inside)
            distance += abs(sum(match.relevance for match in inside) - right) / len(matches)
            name = f"right where relevance is {place / BINS:.1f} to {(place + 1) / BINS:.1f}"
            figures[name] = _figure(right / len(inside), inside)
    return {"relevance, distance from how often right": _figure(distance, matches)} | figures
