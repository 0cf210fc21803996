"""The words of the memories met last, so that a search need not split each text anew."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache

from soulkeep.days import Days
from soulkeep.models import Memory
from soulkeep.search.dates import day_words
from soulkeep.search.questions import text_words

MAX_CHARACTERS = 4_000_000
"""Characters of texts whose words are kept, at some ten bytes each: 20,000 memories of usual length."""

_Key = tuple[str, str | None, str]
"""A memory's content, subject and time."""


class WordCache:
    """Words of texts, the latest met, up to a number of characters; threads may share it."""

    def __init__(self, days: Days, most: int = MAX_CHARACTERS) -> None:
        self.characters = 0
        self._days = days
        self._most = most
        self._words: OrderedDict[_Key, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def words_of(self, memories: Mapping[int, Memory]) -> dict[int, tuple[str, ...]]:
        """Return the words of each memory's text, subject and day, for ranking."""
        with self._lock:
            return {
                i: self._words_of((m.content, m.subject, m.occurred_at)) for i, m in memories.items()
            }

    def release(self) -> None:
        """Give back the memory of the words."""
        with self._lock:
            self._words.clear()
            self.characters = 0

    def _words_of(self, key: _Key) -> tuple[str, ...]:
        if (known := self._words.get(key)) is not None:
            self._words.move_to_end(key)
            return known
        content, subject, moment = key
        words = self._words[key] = text_words(content, subject, _words_of_day(self._days.day_of(moment)))
        self.characters += len(content)
        while self.characters > self._most:
            (gone, *_), _ = self._words.popitem(last=False)
            self.characters -= len(gone)
        return words


@lru_cache(10_000)
def _words_of_day(day: date | None) -> Sequence[str]:
    return day_words(day) if day else ()
