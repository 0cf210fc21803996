"""Query words and the fusion of rankings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.ranking import MAX_TERMS, RRF_K, query_terms, reciprocal_rank_fusion


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("When do I get paid?", ["get", "paid"]),
        ("who am I", ["who", "am", "i"]),
        ("Tea, TEA and tea", ["tea"]),
        ("snake_case v1.2", ["snake", "case", "v1", "2"]),
        ("Größe der Küche", ["größe", "der", "küche"]),
        ("?!", []),
    ],
)
def test_a_query_becomes_its_distinct_words_without_those_that_say_nothing(
    query: str, terms: list[str]
) -> None:
    assert query_terms(query) == terms


def test_a_long_query_is_limited() -> None:
    assert len(query_terms(" ".join(f"word{number}" for number in range(500)))) == MAX_TERMS


def test_what_two_rankings_agree_on_comes_before_what_only_one_has_first() -> None:
    fused = reciprocal_rank_fusion([[1, 2, 3], [4, 2, 5]], limit=10)

    assert fused[0][1] == pytest.approx(2 / (RRF_K + 2))
    assert [candidate for candidate, _ in fused] == [2, 4, 1, 5, 3]


@given(st.lists(st.lists(st.integers(0, 50), unique=True), max_size=4), st.integers(1, 20))
def test_the_fusion_loses_and_invents_nothing_and_is_ordered(
    rankings: list[list[int]], limit: int
) -> None:
    fused = reciprocal_rank_fusion(rankings, limit)
    candidates = {candidate for ranking in rankings for candidate in ranking}

    assert len(fused) == min(limit, len(candidates))
    assert {candidate for candidate, _ in fused} <= candidates
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
