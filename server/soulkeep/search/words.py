"""Text as words, in every script: what the full-text index holds and what a query is looked up by.

Numbers, versions, identifiers and names such as C++ are words of their own, which `identifiers` reads.
A text is found by a little more than a question asks for: "GPT 4" by "gpt4" too, 555-0199 by "0199".
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import chain
from operator import attrgetter

from soulkeep.labels import in_one_form
from soulkeep.search.identifiers import Read, letter_words, names_go, read_run, run_pattern, with_signs

TEXT_RULES = 3
"""Grows with every change of what `split_words` returns, or of how documents are read: a store that
older rules indexed is indexed anew when it is opened."""

# Function words that say nothing of what is looked for; in a query they only pull in long memories.
STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being but by can could did do
    does doing for from had has have having he her here hers him his how i if in into is it its just me
    more most my no nor not now of off on once only or other our ours out over own she should so some
    such than that the their theirs them then there these they this those through to too under until up
    us very was we were what when where which while who whom whose why will with would you your yours
    """.split()
)

# Marks that readers leave out at will: accents, Cyrillic titlo, niqqud, tashkeel. Those of Indic scripts
# are vowels and stay.
_OPTIONAL_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u200c\u200d]"
)

# Letters that are written either way, and that no decomposition takes apart; dashes and other signs.
_SAME = (
    "\u0131iđdĐDøoØOłlŁL\u0649\u064a\u0629\u0647\u2010-\u2011-\u2012-\u2013-\u2212-\u2044/\u066b.\u266f#"
)

# Signs that set thousands apart and do nothing else there.
_THIN_SPACE = re.compile("(?<=\\d)[\u00a0\u066c\u2007-\u2009\u2019\u202f](?=\\d{3}(?!\\d))")

# Scripts that are written without spaces (Thai, Lao, Myanmar, Khmer, kana, Han), and Hangul, whose
# particles are written without one. 々 and ー repeat and lengthen what stands before them.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
)
_UNSPACED += "\U00020000-\U0003ffff"

_INDIC = range(0x900, 0x1100)
_DIGITS = (*range(0x660, 0x1100), *range(0x17E0, 0x17EA))
_ASCII_WORD = re.compile("[A-Za-z0-9]+")
_IDENTIFIER = re.compile("[0-9_@&+#*]|[.-][A-Za-z]")
"""Without any of these a text in ASCII has only words of letters, which are found more quickly."""


@cache
def _ascii_run() -> re.Pattern[str]:
    return re.compile(run_pattern("[A-Za-z0-9]", "[A-Za-z]"))


@cache
def _run() -> re.Pattern[str]:
    # Built on the first text that needs it: most of the world's marks are looked up here.
    marks = "".join(chr(point) for point in _INDIC if unicodedata.category(chr(point)) in ("Mn", "Mc"))
    word = f"(?:(?![{_UNSPACED}])[^\\W_]|[{marks}])"
    return re.compile(f"([{_UNSPACED}]+)|" + run_pattern(word, r"[^\W\d_]"))


@cache
def _same_signs() -> dict[int, str]:
    digits = {d: str(unicodedata.decimal(chr(d))) for d in _DIGITS if chr(d).isdecimal()}
    return digits | {ord(one): other for one, other in zip(_SAME[::2], _SAME[1::2], strict=True)}


def split_words(text: str) -> list[str]:
    """Return the words that a text is found by, some of them twice: in one case, without optional marks.

    A run of a script without spaces becomes its overlapping pairs of characters and its last character
    alone, so that a pair finds it anywhere, and one character as the beginning of a word does too.
    """
    return [*_split(text, attrgetter("found")), *(["golang"] if names_go(text) else ())]


def split_query(text: str) -> list[str]:
    """Return the words that a question asks for; a text that says the same is found by each of them."""
    return _split(text, attrgetter("asked"))


def _split(text: str, side: Callable[[Read], tuple[str, ...]]) -> list[str]:
    text = with_signs(text)
    if text.isascii():
        if _IDENTIFIER.search(text) is None:
            return list(chain.from_iterable(map(letter_words, _ASCII_WORD.findall(text))))
        return [word for run in _ascii_run().findall(text) for word in side(read_run(run, STOP_WORDS))]
    words: list[str] = []
    for match in _run().finditer(fold(text)):
        words.extend(_pairs(match[0]) if match[1] else side(read_run(match[0], STOP_WORDS)))
    return words


def same_text(text: str) -> str:
    """Return what texts share that a reader cannot tell apart, as `labels` has it.

    An editor may have written an accent as a mark of its own, as file names have it on macOS.
    """
    return in_one_form(text)


def same_title(text: str) -> str:
    """Return what titles share that differ in case at most, or in what a reader cannot see."""
    return same_text(same_text(text).casefold())


def fold(text: str) -> str:
    """Return a text without optional marks, digits and dashes as in ASCII; letters keep their case."""
    if text.isascii():
        return text
    bare = _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFKD", _THIN_SPACE.sub(",", text)))
    return unicodedata.normalize("NFC", bare).translate(_same_signs())


def _pairs(run: str) -> list[str]:
    return [*(run[at : at + 2] for at in range(len(run) - 1)), run[-1]]


def is_single_unspaced(word: str) -> bool:
    """Whether a word is one character of a script without spaces, which only begins indexed words."""
    match = None if word.isascii() or len(word) != 1 else _run().fullmatch(word)
    return match is not None and match[1] is not None
