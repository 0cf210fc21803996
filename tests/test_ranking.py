"""Query words and the order of candidates."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.models import Match, Memory
from soulkeep.search.questions import MAX_TERMS, inverse_document_frequency, query_terms, text_words
from soulkeep.search.ranking import FITS, Candidates, Question, by_promise, exact_strengths, rank


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("When do I get paid?", ["get", "paid"]),
        ("who am I", ["who", "am", "i"]),
        ("Tea, TEA and tea", ["tea"]),
        ("snake_case v1.2", ["snakecase", "snake", "case", "1.2"]),
        ("Größe der Küche", ["grosse", "der", "kuche"]),
        ("?!", []),
    ],
)
def test_a_query_becomes_its_distinct_words_without_those_that_say_nothing(
    query: str, terms: list[str]
) -> None:
    assert query_terms(query) == terms


def test_a_long_query_is_limited() -> None:
    assert len(query_terms(" ".join(f"word{number}" for number in range(500)))) == MAX_TERMS


def memory(
    number: int, content: str, thread_id: str | None = None, subject: str | None = None
) -> Memory:
    when = f"2026-03-{number:02}T12:00:00.000Z"
    return Memory(number, thread_id, content, "fact", None, when, subject, when)


def ordered(
    memories: list[Memory],
    weights: dict[str, float],
    bm25: dict[int, float] | None = None,
    semantic: dict[int, float] | None = None,
    stored: int = 1,
    text: str = "",
    neighbours: dict[int, tuple[int | None, int | None]] | None = None,
) -> list[Match]:
    found = Candidates(
        {m.id: m for m in memories},
        bm25 or {},
        {m.id: 0.0 for m in memories} if semantic is None else semantic,
        neighbours or {},
        chance={m.id: 1.0 for m in memories} if semantic or semantic is None else {},
    )
    words = {m.id: text_words(m.content, m.subject, ("1", "march", "2026")) for m in memories}
    return rank(Question(weights, stored=stored, text=text), found, words, exact_strengths, 10)


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    rare, common = (inverse_document_frequency(100, n) for n in (1, 90))

    matches = ordered([memory(1, "common"), memory(2, "rare")], {"common": common, "rare": rare})

    assert rare > 10 * common
    assert [match.memory.id for match in matches] == [2, 1]


def test_without_vectors_relevance_grows_with_the_share_of_the_question_that_a_memory_covers() -> None:
    matches = ordered(
        [memory(1, "tea and milk"), memory(2, "tea"), memory(3, "sand")],
        {"tea": 1.0, "milk": 3.0},
        bm25={1: 2.0, 2: 1.0, 3: 0.0},
        semantic={},
    )

    assert [m.memory.id for m in matches] == [1, 2, 3]
    assert matches[0].relevance > 0.7 > matches[1].relevance > FITS > matches[2].relevance


@pytest.mark.parametrize(
    ("best", "other", "is_lifted"),
    [
        ("My spouse is called Joris.", "Joris restores old bicycles.", True),
        ("The user and Zoë married.", "Zoë restores old bicycles.", True),
        ("My spouse is called Joris.", "Bicycles are restored by Fenn.", False),
        ("My spouse is a cook.", "Joris restores old bicycles.", False),
        # Asked for by name, it needs no lift; and a word at the head of a sentence is no name.
        ("My spouse is called Anna.", "Anna restores old bicycles.", False),
        ("Working with my spouse is fun.", "Working on old bicycles.", False),
    ],
)
def test_a_name_in_the_best_match_leads_to_what_else_has_it(
    best: str, other: str, is_lifted: bool
) -> None:
    others = [memory(number, f"Nothing of note on day {number}.") for number in range(3, 29)]
    matches = ordered(
        [memory(1, best), memory(2, other), *others],
        {"spouse": 1.0},
        semantic={1: 1.0, 2: 0.1} | {m.id: 0.2 for m in others},
        text="What does the spouse of Anna tinker with?",
    )

    assert matches[0].memory.id == 1
    found = next(match for match in matches if match.memory.id in {2, 3, 28})
    assert (found.memory.id == 2) == is_lifted


def test_a_name_that_many_have_lifts_nobody() -> None:
    many = [memory(number, f"With Joris on day {number}.") for number in range(2, 29)]
    matches = ordered([memory(1, "My spouse is called Joris."), *many], {"spouse": 1.0})

    assert all("neighbour" not in match.reasons for match in matches)


@pytest.mark.parametrize(
    ("stored", "semantic"), [(1, 0.2), (1, 0.3), (300, 0.6), (300, 0.7), (10**6, 0.7)]
)
def test_a_memory_fits_that_says_more_than_chance_brings_up(stored: int, semantic: float) -> None:
    (match,) = ordered([memory(1, "sand")], {"tea": 1.0}, semantic={1: semantic}, stored=stored)
    chance = min(0.27 + 0.064 * math.log(stored), 0.7)
    assert (match.relevance >= FITS) == (semantic >= chance)


def test_relevance_grows_with_what_words_and_vectors_say_and_shrinks_with_the_store() -> None:
    def relevance(content: str, semantic: float, stored: int) -> float:
        (match,) = ordered([memory(1, content)], {"tea": 1.0}, semantic={1: semantic}, stored=stored)
        return match.relevance

    grows = [
        relevance(*case) for case in (("sand", -1, 9), ("sand", 0.5, 9), ("tea", 0.5, 9), ("tea", 3, 9))
    ]
    assert grows == sorted(grows)
    assert 0 < grows[0] < FITS < grows[1] < 0.5 < grows[2] < grows[3] < 1
    assert relevance("tea", 0.5, 10) > relevance("tea", 0.5, 1_000)


def test_the_one_subject_that_a_question_names_comes_first() -> None:
    memories = [memory(1, "likes tea", subject="Anna"), memory(2, "likes tea", subject="Ben")]

    for name, first in (("anna", 1), ("ben", 2)):
        (match, *_) = ordered(memories, {"tea": 1.0, name: 1.0})
        assert match.memory.id == first
        assert match.reasons["subject"] > 0
    both = ordered(memories, {"tea": 1.0, "anna": 1.0, "ben": 1.0})
    assert all("subject" not in match.reasons for match in both)


def test_an_answer_is_lifted_by_the_question_before_it_in_the_thread() -> None:
    memories = [
        memory(1, "Which tea do you like?", "t"),
        memory(2, "Green.", "t"),
        memory(3, "Green.", "u"),
    ]

    matches = ordered(memories, {"tea": 1.0, "like": 1.0}, neighbours={1: (None, 2), 2: (1, None)})

    found = {match.memory.id: match for match in matches}
    assert found[2].score > found[3].score
    assert found[2].reasons["neighbour"] > 0.9


def test_global_memories_do_not_lift_each_other() -> None:
    alone = ordered([memory(1, "tea")], {"tea": 1.0})
    among = ordered([memory(1, "tea"), memory(2, "tea"), memory(3, "tea")], {"tea": 1.0})

    assert {match.score for match in among} == {alone[0].score}


@given(
    st.lists(st.text("ab ?", min_size=1, max_size=8), min_size=1, max_size=8),
    st.lists(st.floats(-1, 1), min_size=8, max_size=8),
)
def test_every_candidate_is_in_the_answer_once_in_order_with_shares_that_add_up(
    contents: list[str], cosines: list[float]
) -> None:
    memories = [
        memory(i, content, "t" if i % 2 else None) for i, content in enumerate(contents, start=1)
    ]

    matches = ordered(
        memories, {"a": 1.0, "b": 2.0}, semantic={m.id: cosines[m.id - 1] for m in memories}
    )

    assert sorted(match.memory.id for match in matches) == [m.id for m in memories]
    assert [m.score for m in matches] == sorted((m.score for m in matches), reverse=True)
    for match in matches:
        assert 0 <= match.relevance <= 1.000001
        assert not match.reasons or sum(match.reasons.values()) == pytest.approx(1)


def test_what_is_found_is_promising_by_its_vectors_its_words_and_its_thread() -> None:
    found = [
        memory(1, "Tea", "kitchen"),
        memory(2, "Cups", "kitchen"),
        memory(3, "Rain", "garden"),
        memory(4, "Wind"),
        memory(5, "Sun"),
    ]
    memories = {one.id: one for one in found}
    vectors = {1: 1.2, 2: 0.5, 3: 0.6, 4: 0.6, 5: 0.1}
    assert by_promise(memories, {}, vectors) == [1, 2, 3, 4, 5]
    assert by_promise(memories, {5: 4.0, 4: 2.0}, vectors) == [1, 4, 2, 3, 5]
    assert by_promise(memories, {5: 4.0, 4: 2.0}, {}) == [5, 4, 3, 2, 1]
    assert by_promise({}, {}, {}) == []
