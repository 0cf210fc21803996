"""Text as words, in every script: what the full-text index holds and what a query is looked up by.

Both sides go through `split_words`, so whatever it does to a text it does to the question too.
"""

import re
import sys
import unicodedata
from functools import cache, lru_cache
from itertools import chain

# Marks that readers leave out at will: accents, Cyrillic titlo, niqqud, tashkeel. Those of Indic scripts
# are vowels and stay.
_OPTIONAL_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u200c\u200d]"
)

# Letters that are written either way, and that no decomposition takes apart.
_SAME_LETTERS = str.maketrans("ıđĐøØłŁ\u0649\u0629", "idDoOlL\u064a\u0647")

# Scripts that are written without spaces (Thai, Lao, Myanmar, Khmer, kana, Han), and Hangul, whose
# particles are written without one. 々 and ー repeat and lengthen what stands before them.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
)
_UNSPACED += "\U00020000-\U0003ffff"

_ASCII_WORD = re.compile("[A-Za-z0-9]+")
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@cache
def _runs() -> re.Pattern[str]:
    # Built on the first text that needs it: most of the world's marks are looked up here.
    marks = "".join(
        chr(point) for point in range(0x900, 0x1100) if unicodedata.category(chr(point)) in ("Mn", "Mc")
    )
    return re.compile(f"([{_UNSPACED}]+)|(?:(?![{_UNSPACED}])[^\\W_]|[{marks}])+")


def split_words(text: str) -> list[str]:
    """Split a text into words: folded to one case, without optional marks, identifiers also in parts.

    A run of a script without spaces becomes its overlapping pairs of characters and its last character
    alone, so that a pair finds it anywhere, and one character as the beginning of a word does too.
    """
    if text.isascii():
        return list(chain.from_iterable(map(_with_parts, _ASCII_WORD.findall(text))))
    folded = _fold(text)
    words: list[str] = []
    for match in _runs().finditer(folded):
        words.extend(_pairs(match[0]) if match[1] else _with_parts(match[0]))
    return words


def _fold(text: str) -> str:
    bare = _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", bare).translate(_SAME_LETTERS)


@lru_cache(50_000)
def _with_parts(word: str) -> tuple[str, ...]:
    lower = sys.intern(word.casefold())
    if word.islower() or word.isupper() or len(parts := _CAMEL.split(word)) == 1:
        # Case folding can bring a mark of its own: the Turkish capital İ does.
        return (lower if lower.isascii() else _OPTIONAL_MARKS.sub("", lower),)
    return (lower, *(part.casefold() for part in parts))


def _pairs(run: str) -> list[str]:
    return [*(run[at : at + 2] for at in range(len(run) - 1)), run[-1]]


def is_single_unspaced(word: str) -> bool:
    """Whether a word is one character of a script without spaces, which only begins indexed words."""
    match = None if word.isascii() or len(word) != 1 else _runs().fullmatch(word)
    return match is not None and match[1] is not None
