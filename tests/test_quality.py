"""What the benchmark of quality counts, and whether its questions are fair."""

import pytest

from database_server import database_url
from meaning import auc, best_relevance, unfit_share
from question_sets import (
    OTHER,
    Found,
    Question,
    filled_store,
    found_by_kind,
    load_meaning,
    ranking_figures,
)
from soulkeep.models import EmbedderName

MEANING = load_meaning()

WRONG, RIGHT = Found(False, 0.5), Found(True, 0.5)


def test_a_question_counts_from_the_place_of_its_first_right_memory_on() -> None:
    answers = [[RIGHT, RIGHT], [WRONG, WRONG, RIGHT], [WRONG] * 5 + [RIGHT], [WRONG] * 10]

    figures = ranking_figures(answers)

    assert figures == {
        "questions": 4,
        "@1": 1 / 4,
        "@3": 2 / 4,
        "@5": 2 / 4,
        "@10": 3 / 4,
        "MRR@10": (1 + 1 / 3 + 1 / 6) / 4,
    }


@pytest.mark.parametrize(
    ("known", "unknown", "chance"),
    [([0.9, 0.8], [0.1], 1.0), ([0.1], [0.9, 0.2], 0.0), ([0.5, 0.7], [0.5, 0.6], 5 / 8)],
)
def test_known_exceeds_unknown_by_chance_and_a_tie_counts_half(
    known: list[float], unknown: list[float], chance: float
) -> None:
    assert auc(known, unknown) == chance


def test_each_question_has_an_answer_among_the_memories_except_those_on_another_subject() -> None:
    for question in MEANING.questions:
        assert question.answers <= MEANING.memories.keys(), question
        assert bool(question.answers) == (question.kind != OTHER), question


def test_no_question_is_asked_twice_and_some_are_on_another_subject() -> None:
    queries = [question.query for question in MEANING.questions]
    other = [question for question in MEANING.questions if question.kind == OTHER]

    assert len(set(queries)) == len(queries)
    assert len(other) >= 60


def test_a_store_without_the_answer_has_nothing_right() -> None:
    memories = {n: MEANING.memories[n] for n in list(MEANING.memories)[:3]}
    first = next(iter(memories))
    content = memories[first].content

    with filled_store(memories, "none") as ask:
        assert ask(Question(content, "same", frozenset({first})))[0].is_right
        assert not any(found.is_right for found in ask(Question(content, "same", frozenset({-1}))))


# The short form asks a quarter, of a store with what that needs and a quarter of the others: there
# is less to mistake for an answer in it, so that its bars are its own. One question more may go wrong.
@pytest.mark.embedder
@pytest.mark.parametrize(
    ("every", "least", "known"),
    [
        (4, {"paraphrase": 0.80, "foreign": 0.88, "crosslingual": 0.70, "all": 0.88, OTHER: 0.60}, 0.08),
        pytest.param(
            1,
            {
                "paraphrase": 0.58,
                "agent": 0.95,
                "negation": 0.60,
                "foreign": 0.86,
                "crosslingual": 0.60,
                "all": 0.74,
                OTHER: 0.50,
            },
            0.07,
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_short_memories_are_found_by_meaning_and_other_subjects_are_recognised(
    every: int, least: dict[str, float], known: float
) -> None:
    questions = MEANING.questions[::every]
    answers = {number for question in questions for number in question.answers}
    kept = {n for n in MEANING.memories if n % every == 0 or n in answers}
    memories = {n: memory for n, memory in MEANING.memories.items() if n in kept}

    with filled_store(memories, "auto") as ask:
        kinds = found_by_kind(questions, ask)
    other = kinds.pop(OTHER)
    answered = [found for answers in kinds.values() for found in answers]

    for kind in least.keys() - {"all", OTHER}:
        assert ranking_figures(kinds[kind])["@3"] >= least[kind], kind
    assert ranking_figures(answered)["@3"] >= least["all"]
    assert unfit_share([best_relevance(found) for found in other]) >= least[OTHER]
    assert unfit_share([best_relevance(found) for found in answered]) <= known


@pytest.mark.postgres
@pytest.mark.embedder
@pytest.mark.parametrize("embedder", ["none", "universal"])
def test_both_engines_find_the_same_for_the_same_questions(embedder: EmbedderName) -> None:
    questions = MEANING.answerable[::8]
    answers = {number for question in questions for number in question.answers}
    memories = {n: memory for n, memory in MEANING.memories.items() if n % 8 == 0 or n in answers}
    found = []
    for url in ("", database_url()):
        with filled_store(memories, embedder, url) as ask:
            found.append([ask(question) for question in questions])

    for question, of_file, of_database in zip(questions, *found, strict=True):
        assert [m.is_right for m in of_database] == [m.is_right for m in of_file], question
        relevance = [m.relevance for m in of_file]
        assert [m.relevance for m in of_database] == pytest.approx(relevance, abs=0.0005), question
