"""The words of a question and of a memory, and how rare they are."""

import math
from collections.abc import Mapping, Sequence

from soulkeep.search.words import STOP_WORDS, split_query, split_words

MAX_TERMS = 64
"""Words of a query that are looked up; the rest of a longer one is left out."""

MAX_OCCURRENCES = 5_000
"""Occurrences of words that BM25 reads in a few milliseconds."""


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
