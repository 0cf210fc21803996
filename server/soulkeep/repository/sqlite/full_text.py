"""What FTS5 holds and is asked for any text, filters as SQL, and how many memories have a word."""

import threading
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache

from soulkeep.models import MemoryFilter
from soulkeep.repository.sqlite.database import Database
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
    # Imported here, as opening a store needs none of it.
    from soulkeep.search.dates import day_words

    return " ".join(day_words(day)) if day else ""


WHEN = "ifnull(m.occurred_at, m.created_at)"
"""When a memory of `memories AS m` happened or was said."""


_PASSING = {
    "thread_id": "(m.thread_id = :thread_id OR m.thread_id IS NULL)",
    "memory_type": "m.memory_type = :memory_type",
    "since": f"{WHEN} >= :since",
    "until": f"{WHEN} <= :until",
}


def conditions(
    allowed: MemoryFilter, passing: Mapping[str, str] = _PASSING
) -> tuple[str, dict[str, str]]:
    """Return SQL that begins with AND for each field that is set, and its values.

    `passing` says for each field what passes; as it is, of `memories AS m`.
    """
    values = {name: value for name in passing if (value := getattr(allowed, name)) is not None}
    return "".join(f" AND {passing[name]}" for name in values), values


TOLERANCE = 0.01
"""A kept count is used again while at most this share of it can have been added or taken away."""

_MAXIMUM_KEPT = 10_000


class WordFrequencies:
    """Counts for weighing words; the threads of this process share it.

    Counting reads every occurrence, so a word in half of a million memories takes tens of milliseconds.
    """

    def __init__(self, database: Database) -> None:
        """Count the words of the store that `database` has open."""
        self._database = database
        self._lock = threading.Lock()
        self._kept: dict[str | None, tuple[int, int]] = {}
        self._generation = 0

    def count_and_frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Return how many memories there are, and in how many each word of `terms` occurs.

        Both may be off by one in a hundred, where they are 100 or more.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            generation = self._database.generation
            last_id, last_change = self._database.query(
                "SELECT (SELECT max(id) FROM memories_fts_docsize),"
                " (SELECT max(seq) FROM memory_changes)"
            )[0]
            writes = int(last_id or 0) + int(last_change or 0)
            if len(self._kept) > _MAXIMUM_KEPT or self._generation != generation:
                self._kept.clear()
                self._generation = generation
            count = self._fresh(None, writes)
            return count, {term: self._fresh(term, writes) for term in terms}

    def release(self) -> None:
        """Give back the memory of the counts."""
        with self._lock:
            self._kept.clear()

    def _fresh(self, term: str | None, writes: int) -> int:
        """Return how many memories have a word, or there are, counted anew where much was written."""
        kept, then = self._kept.get(term, (0, 0))
        if not 0 <= writes - then <= kept * TOLERANCE:
            if term is None:
                rows = self._database.query("SELECT count(*) FROM memories_fts_docsize")
            else:
                count = "SELECT count(*) FROM memories_fts WHERE memories_fts MATCH ?"
                rows = self._database.query(count, (fts_term(term),))
            kept = int(rows[0][0])
            self._kept[term] = (kept, writes)
        return kept
