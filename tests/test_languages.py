"""Recall in many languages and scripts, all in one store, and whether the questions are fair."""

import json
import re
import unicodedata

import pytest

from question_sets import LANGUAGES as DATA
from question_sets import measure_languages
from soulkeep.models import EmbedderName

LANGUAGES = json.loads(DATA.read_text(encoding="utf-8"))
ENOUGH = 0.95

SHARED_BY = 3
"""How many memories of a language may have what a question shares with its answer."""

# Written without spaces, or with particles attached: Thai, Hangul, kana and Han.
UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


def folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    kept = "".join(character for character in decomposed if unicodedata.category(character) != "Mn")
    return unicodedata.normalize("NFC", kept)


def pieces(text: str) -> set[str]:
    """The words of a text, and the pairs of characters of those without spaces between them."""
    text = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded(text))
    words = [word for word in text.split() if len(word) > 1]
    pairs = [w[i : i + 2] for w in words if UNSPACED.search(w) for i in range(len(w) - 1)]
    return {*words, *pairs}


def below(embedder: EmbedderName, every: int = 1) -> dict[str, float]:
    """The languages in which too few answers are among the first five, and how many are."""
    figures = measure_languages(embedder, every)
    found = {language: figures[language]["@5"] for language in LANGUAGES}
    return {language: share for language, share in found.items() if share < ENOUGH}


# One store for all languages, which is filled once.


@pytest.mark.embedder
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.campaign)])
def test_words_and_meaning_find_the_answer(every: int) -> None:
    assert below("auto", every) == {}


def test_words_alone_find_the_answer() -> None:
    assert below("none") == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_question_shares_something_with_its_answer_and_few_others(language: str) -> None:
    memories = [folded(memory) for memory in LANGUAGES[language]["memories"]]
    for question in LANGUAGES[language]["questions"]:
        answer = memories[question["answer"]]
        shared = [piece for piece in pieces(question["query"]) if piece in answer]
        assert any(sum(piece in m for m in memories) <= SHARED_BY for piece in shared), question


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_enough_distinct_memories_and_asks_for_all(language: str) -> None:
    memories, questions = LANGUAGES[language]["memories"], LANGUAGES[language]["questions"]
    assert min(len(set(memories)), len({question["query"] for question in questions})) >= 10
    assert {question["answer"] for question in questions} == set(range(len(memories)))
