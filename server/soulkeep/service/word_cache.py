"""The words of the memories met last, so that a search need not split each text anew."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

from soulkeep.dates import day_words
from soulkeep.terms import text_words

MAX_CHARACTERS = 4_000_000
"""Characters of texts whose words are kept, at some ten bytes each: 20,000 memories of usual length."""

_Key = tuple[str, str | None, date | None]


class WordCache:
    """Words of texts, the latest met, up to a number of characters; threads may share it."""

    def __init__(self, most: int = MAX_CHARACTERS) -> None:
        self.characters = 0
        self._most = most
        self._words: OrderedDict[_Key, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def words_of(self, content: str, subject: str | None, day: date | None) -> tuple[str, ...]:
        """Return the words of a memory's text, subject and day, for ranking."""
        key = content, subject, day
        with self._lock:
            if (known := self._words.get(key)) is not None:
                self._words.move_to_end(key)
                return known
        words = text_words(content, subject, _words_of_day(day))
        with self._lock:
            if key not in self._words:
                self.characters += len(content)
            self._words[key] = words
            while self.characters > self._most:
                (gone, *_), _ = self._words.popitem(last=False)
                self.characters -= len(gone)
        return words


@lru_cache(10_000)
def _words_of_day(day: date | None) -> Sequence[str]:
    return day_words(day) if day else ()
