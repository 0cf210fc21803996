"""English endings, taken off as Porter's algorithm has it, so that "ferries" and "ferry" are one word.

M. F. Porter, An algorithm for suffix stripping, Program 14 (3), 1980. The engine that brings an index of
its own (FTS5) does the same inside of it; this is for those that are given words.
"""

from functools import lru_cache
from itertools import pairwise

_SHORTEST, _LONGEST = 3, 64
"""In bytes: other words stay as they are."""

_VOWELS = frozenset("aeiou")
_UNDOUBLED = frozenset("lsz")

_SECOND = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "logi": "log",
    "bli": "ble", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize",
    "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful",
    "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_THIRD = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_FOURTH = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip


@lru_cache(50_000)
def without_ending(word: str) -> str:
    """Return what is left of a word in small letters without its English ending."""
    letters = word.encode()
    if not _SHORTEST <= len(letters) <= _LONGEST:
        return word
    # Endings are in ASCII, and every other byte counts as a consonant.
    stem = _without_past(_without_plural(letters.decode("latin-1")))
    if stem.endswith("y") and _has_vowel(stem[:-1]):
        stem = f"{stem[:-1]}i"
    stem = _without_suffix(_replaced(_replaced(stem, _SECOND), _THIRD))
    if stem.endswith("e"):
        measure = _measure(stem[:-1])
        if measure > 1 or (measure == 1 and not _ends_short(stem[:-1])):
            stem = stem[:-1]
    if stem.endswith("ll") and _measure(stem[:-1]) > 1:
        stem = stem[:-1]
    return stem.encode("latin-1").decode(errors="replace")


def _without_plural(word: str) -> str:
    if not word.endswith("s") or word.endswith("ss"):
        return word
    if (word.endswith("sses") and len(word) > 4) or (word.endswith("ies") and len(word) > 3):
        return word[:-2]
    return word[:-1]


def _without_past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    stem = next((word[: -len(end)] for end in ("ed", "ing") if word.endswith(end)), "")
    if not _has_vowel(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return f"{stem}e"
    if stem[-1:] == stem[-2:-1] and not _is_vowel(stem, len(stem) - 1) and stem[-1] not in _UNDOUBLED:
        return stem[:-1]
    return f"{stem}e" if _measure(stem) == 1 and _ends_short(stem) else stem


def _replaced(word: str, endings: dict[str, str]) -> str:
    """Put another ending in the place of the longest of these, where enough stands before it."""
    for length in range(min(7, len(word) - 1), 2, -1):
        if (other := endings.get(word[-length:])) is not None:
            return word[:-length] + other if _measure(word[:-length]) > 0 else word
    return word


def _without_suffix(word: str) -> str:
    for ending in sorted(_FOURTH, key=len, reverse=True):
        if word.endswith(ending):
            stem = word[: -len(ending)]
            fits = _measure(stem) > 1 and (ending != "ion" or stem.endswith(("s", "t")))
            return stem if fits else word
    return word


def _is_vowel(word: str, at: int) -> bool:
    letter = word[at]
    return letter in _VOWELS or (letter == "y" and at > 0 and not _is_vowel(word, at - 1))


def _has_vowel(word: str) -> bool:
    return any(_is_vowel(word, at) for at in range(len(word)))


def _measure(word: str) -> int:
    """Count how often consonants follow vowels."""
    kinds = [_is_vowel(word, at) for at in range(len(word))]
    return sum(one and not other for one, other in pairwise(kinds))


def _ends_short(word: str) -> bool:
    """Whether it ends in a consonant, a vowel and a consonant that is none of w, x and y."""
    if len(word) < 3 or word[-1] in "wxy":
        return False
    last = [_is_vowel(word, at) for at in range(len(word) - 3, len(word))]
    return last == [False, True, False]
