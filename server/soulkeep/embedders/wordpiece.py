"""BERT's uncased WordPiece tokenizer, without a package for it.

Wu et al., "Google's Neural Machine Translation System", 2016, section 4.1, as BERT uses it: text is
cleaned, split at spaces and signs and made lower case without accents; then each word becomes the
longest pieces of the vocabulary from its left.
"""

import unicodedata
from importlib.resources import files

CLS, SEP, UNKNOWN = 101, 102, 100
"""The ids of the tokens before and behind a text, and of a word that the vocabulary cannot spell."""

LONGEST_WORD = 100
"""Characters; a longer word is unknown, as in BERT."""

_WORDS_KEPT = 20_000
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Turns text into ids of the vocabulary that all-MiniLM-L6-v2 was trained with.

    Names of tokens in a text, such as `[SEP]`, are text like any other.
    """

    def __init__(self) -> None:
        lines = files("soulkeep.embedders").joinpath("minilm_vocabulary.txt").read_text("utf-8")
        self._vocabulary = {piece: number for number, piece in enumerate(lines.splitlines())}
        self._cleaned = _Cleaned()
        self._folded = _Folded()
        self._known: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, none for a blank one, without those before and behind it."""
        cleaned = unicodedata.normalize("NFD", text.translate(self._cleaned))
        ids: list[int] = []
        for word in cleaned.translate(self._folded).split():
            ids += self._known.get(word) or self._keep(word)
        return ids

    def _keep(self, word: str) -> tuple[int, ...]:
        if len(self._known) >= _WORDS_KEPT:
            self._known.clear()
        pieces = self._known[word] = self._pieces(word)
        return pieces

    def _pieces(self, word: str) -> tuple[int, ...]:
        """Return the ids of a word's pieces, the longest first; the unknown one if any is missing."""
        if len(word) > LONGEST_WORD:
            return (UNKNOWN,)
        pieces: list[int] = []
        begin, mark = 0, ""
        while begin < len(word):
            for end in range(len(word), begin, -1):
                found = self._vocabulary.get(mark + word[begin:end])
                if found is not None:
                    break
            else:
                return (UNKNOWN,)
            pieces.append(found)
            begin, mark = end, "##"
        return tuple(pieces)


class _Cleaned(dict[int, str | None]):
    """What `str.translate` makes of a code point: control characters go, ideographs stand alone."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        cleaned: str | None = character
        if character in "\t\n\r" or category == "Zs":
            cleaned = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co", "Cs"):
            cleaned = None
        elif any(first <= code <= last for first, last in _IDEOGRAPHS):
            cleaned = f" {character} "
        self[code] = cleaned
        return cleaned


class _Folded(dict[int, str | None]):
    """What `str.translate` makes of a code point of decomposed text: accents go, signs stand alone."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        is_sign = category[0] == "P" or (character.isascii() and category[0] == "S")
        folded = None if category == "Mn" else f" {character} " if is_sign else character.lower()
        self[code] = folded
        return folded
