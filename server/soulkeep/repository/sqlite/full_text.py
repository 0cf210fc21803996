"""What FTS5 is given to hold and to look up, for any text."""

from datetime import date
from functools import lru_cache

from soulkeep.search.dates import day_words
from soulkeep.search.words import SIGNS, is_single_unspaced, split_words

# FTS5 cuts words at signs, and takes characters for private use for letters; no word has those.
_AS_LETTERS = {ord(sign): 0xE000 + ord(sign) for sign in SIGNS}


def fts_text(text: str) -> str:
    """Return what FTS5 is to hold of a text: its words, with letters in the place of signs."""
    return " ".join(split_words(text)).translate(_AS_LETTERS)


def fts_term(term: str) -> str:
    """Return what FTS5 has to match for one word of `split_query`."""
    term = term.translate(_AS_LETTERS)
    # Quoted, a word is a string to FTS5 and never one of its operators.
    return f'"{term}"*' if is_single_unspaced(term) else f'"{term}"'


@lru_cache(10_000)
def fts_day(day: date | None) -> str:
    """Return what FTS5 is to hold of the day of a memory; nothing where it has none."""
    return " ".join(day_words(day)) if day else ""
