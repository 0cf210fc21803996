"""Text becomes the tokens of BERT's uncased vocabulary."""

import hashlib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.embedders.minilm import LONGEST_WORD, UNKNOWN, WordPiece

wordpiece = WordPiece()
PIECES = files("soulkeep.embedders").joinpath("minilm_vocabulary.txt").read_text("utf-8").splitlines()


def pieces(text: str) -> list[str]:
    return [PIECES[number] for number in wordpiece.ids(text)]


# What the package tokenizers 0.23 makes of these texts with the model's own tokenizer.json.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Which food could make me sick?", "which food could make me sick ?"),
        ("Unaffable peanut-butter", "una ##ffa ##ble peanut - butter"),
        ("Café Ångström RÉSUMÉ", "cafe ang ##strom resume"),
        ("İstanbul, ΟΔΟΣ", "istanbul , \u03bf ##\u03b4 ##\u03bf ##\u03c3"),
        ("東京 tower", "東 京 tower"),
        ("don't  stop\t\nnow", "don ' t stop now"),
        ("a\u200bb c\x07d e\xa0f", "ab cd e f"),
        ("$5 + 3% = x^2", "$ 5 + 3 % = x ^ 2"),
        ("🍵 tea", "[UNK] tea"),
        ("[SEP] [CLS]", "[ sep ] [ cl ##s ]"),
        (" \n", ""),
    ],
)
def test_text_is_split_as_the_model_was_trained(text: str, expected: str) -> None:
    assert pieces(text) == expected.split()


def test_the_vocabulary_is_the_models_own() -> None:
    data = files("soulkeep.embedders").joinpath("minilm_vocabulary.txt").read_bytes()

    assert len(PIECES) == 30_522
    assert hashlib.sha256(data).hexdigest().startswith("07eced375cec144d27c900241f3e3394")


def test_a_word_of_many_letters_is_unknown() -> None:
    assert wordpiece.ids("a" * 5_000) == [UNKNOWN]
    assert UNKNOWN not in wordpiece.ids("a" * LONGEST_WORD)


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_has_ids_of_the_vocabulary(text: str) -> None:
    ids = wordpiece.ids(text)

    assert all(0 <= number < len(PIECES) for number in ids)
    assert wordpiece.ids(f"{text} {text}") == 2 * ids


def test_many_different_words_do_not_fill_the_memory() -> None:
    own = WordPiece()

    own.ids(" ".join(f"word{number}" for number in range(50_000)))

    assert len(own._known) <= 20_000
    assert own.ids("word7 peanut") == wordpiece.ids("word7 peanut")
