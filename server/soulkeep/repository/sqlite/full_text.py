"""What FTS5 holds and is asked for any text, filters as SQL, and how many memories have a word."""

import threading
from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache, partial

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


def conditions(allowed: MemoryFilter) -> tuple[str, dict[str, str]]:
    """Return SQL that begins with AND for each set field, over `memories AS m`, and its values."""
    conditions = {
        "thread": ("(m.thread_id = :thread OR m.thread_id IS NULL)", allowed.thread_id),
        "type": ("m.memory_type = :type", allowed.memory_type),
        "since": (f"{WHEN} >= :since", allowed.since),
        "until": (f"{WHEN} <= :until", allowed.until),
    }
    chosen = {name: (sql, value) for name, (sql, value) in conditions.items() if value is not None}
    where = "".join(f" AND {sql}" for sql, _ in chosen.values())
    return where, {name: value for name, (_, value) in chosen.items()}


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
            generation, writes = self._database.generation, self._writes()
            if len(self._kept) > _MAXIMUM_KEPT or self._generation != generation:
                self._kept.clear()
                self._generation = generation
            count = self._fresh(None, writes, self._count)
            return count, {
                term: self._fresh(term, writes, partial(self._frequency, term)) for term in terms
            }

    def release(self) -> None:
        """Give back the memory of the counts."""
        with self._lock:
            self._kept.clear()

    def _writes(self) -> int:
        last_id, last_change = self._database.query(
            "SELECT (SELECT max(id) FROM memories_fts_docsize), (SELECT max(seq) FROM memory_changes)"
        )[0]
        return int(last_id or 0) + int(last_change or 0)

    def _fresh(self, term: str | None, writes: int, count: Callable[[], int]) -> int:
        kept, then = self._kept.get(term, (0, 0))
        if not 0 <= writes - then <= kept * TOLERANCE:
            kept = count()
            self._kept[term] = (kept, writes)
        return kept

    def _count(self) -> int:
        return int(self._database.query("SELECT count(*) FROM memories_fts_docsize")[0][0])

    def _frequency(self, term: str) -> int:
        count = "SELECT count(*) FROM memories_fts WHERE memories_fts MATCH ?"
        return int(self._database.query(count, (fts_term(term),))[0][0])
