"""How near the words of a question and those of a text are in meaning, by static vectors of words.

A text's best match per question word, summed, is late interaction: Khattab and Zaharia, "ColBERT",
SIGIR 2020, here over vectors that do not depend on the words around.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from soulkeep.embedders import groups
from soulkeep.search.words import is_exact

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_WORDS = 16_384
"""Words whose vectors are kept in memory, a byte a dimension."""

MAX_NEAR = 2_000
"""Words of a text, each counted once, that are compared by meaning; the others count where they are the
question's own."""

MAX_COMPARED = 8_192
"""Words of texts that are compared at once."""

_FIRST_WORDS = 1_024
"""Words for whose vectors there is room at first; the room doubles as it is needed."""

_EMPTY = 0
"""The row of words that have no vector."""

_CODE_MAX = 127

WordVectors = Callable[[Sequence[str]], "NDArray[Any]"]
"""For words, one unit vector a row, or zeros for a word that has none."""

_Kept = tuple["NDArray[Any]", "NDArray[Any]"]
"""The codes of vectors, and what makes each the vector again."""


class WordMatches:
    """Compares words by the vectors of a model, which it keeps; threads may share it.

    It keeps them as int8, each with a scale: a cosine is off by 0.006 at most, and half as much is read.
    """

    def __init__(self, vectors: WordVectors, unrelated: float) -> None:
        """Compare by `vectors`; words up to the cosine `unrelated` have nothing in common."""
        self._vectors = vectors
        self._unrelated = unrelated
        self._lock = threading.RLock()
        self.release()

    def release(self) -> None:
        """Give back the memory of the vectors."""
        with self._lock:
            self._rows: dict[str, int] = {}
            self._kept: _Kept | None = None
            self._filled = _EMPTY + 1

    @property
    def memory_used(self) -> int:
        """How many bytes the vectors take, the words themselves not counted."""
        kept = self._kept
        return 0 if kept is None else kept[0].nbytes + kept[1].nbytes

    def __call__(
        self, query: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[float]]:
        """Return for each text how well its words match each query word: 1 the same, 0 unrelated.

        Between them it is linear in the cosine of the nearest word. A word with digits or signs is near
        to itself alone: 100218 has nothing of 100821.
        """
        if not query or not any(texts):
            return [[0.0] * len(query) for _ in texts]
        compared = [_compared(query, text) for text in texts]
        with self._lock:
            return [
                strengths
                for group in groups(compared, MAX_COMPARED, len)
                for strengths in self._strengths(query, group)
            ]

    def _strengths(self, query: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        import numpy as np

        (codes, scales), places = self._places([*query, *itertools.chain.from_iterable(texts)])
        asked, words = places[: len(query)], places[len(query) :]
        rows = np.maximum(words, _EMPTY)
        is_used = np.zeros(self._filled, bool)
        is_used[rows] = True
        used = np.flatnonzero(is_used)
        turn = np.empty(len(is_used), np.intp)
        turn[used] = np.arange(len(used))
        of_texts, of_query = (
            np.multiply(codes[some], scales[some, None], dtype=scales.dtype)
            for some in (used, np.maximum(asked, _EMPTY))
        )
        cosines = of_texts @ of_query.T
        near = np.clip((cosines - self._unrelated) / (1 - self._unrelated), 0, 1)
        near[used[:, np.newaxis] == np.where(asked > _EMPTY, asked, -1)] = 1
        strong = near[turn[rows]]
        for column in np.flatnonzero(asked <= _EMPTY):
            # A word is itself, whether it has a vector or not.
            strong[words == asked[column], column] = 1
        lengths = np.array([len(text) for text in texts])
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        filled = lengths > 0
        best = np.zeros((len(texts), len(query)), dtype=np.float32)
        if filled.any():
            best[filled] = np.maximum.reduceat(strong, starts[filled], axis=0)
        strengths: list[list[float]] = best.tolist()
        return strengths

    def _places(self, words: Sequence[str]) -> "tuple[_Kept, NDArray[Any]]":
        """Return the vectors that are kept, and which of them is each word's: below zero, none is."""
        import numpy as np

        kept = self._kept
        if kept is None or not self._rows.keys() >= set(words):
            if self._filled > MAX_WORDS:
                self.release()
            elif len(self._rows) - self._filled > MAX_WORDS:  # too many words without a vector
                self._rows = {word: place for word, place in self._rows.items() if place > _EMPTY}
            missing = [word for word in dict.fromkeys(words) if word not in self._rows]
            near = [word for word in missing if not is_exact(word)]
            kept = self._kept = self._with(near)
            # A memory may have many numbers that no other has, and they need no vectors.
            exact = (word for word in missing if is_exact(word))
            self._rows |= zip(exact, itertools.count(-1 - len(self._rows), -1))
            self._rows |= zip(near, itertools.count(self._filled))
            self._filled += len(near)
        return kept, np.fromiter(map(self._rows.__getitem__, words), np.intp, len(words))

    def _with(self, words: Sequence[str]) -> "_Kept":
        """Return the vectors that are kept, those of more words behind them."""
        import numpy as np

        vectors = self._vectors(words)
        codes, scales = self._kept or (
            np.zeros((_FIRST_WORDS, vectors.shape[1]), np.int8),
            np.zeros(_FIRST_WORDS, np.float32),
        )
        end = self._filled + len(words)
        while end > len(codes):
            codes, scales = (
                np.vstack((codes, np.zeros_like(codes))),
                np.append(scales, np.zeros_like(scales)),
            )
        peaks = np.abs(vectors).max(axis=1)
        steps = np.where(peaks > 0, peaks, 1) / _CODE_MAX
        codes[self._filled : end] = np.rint(vectors / steps[:, np.newaxis])
        scales[self._filled : end] = steps
        return codes, scales


def _compared(query: Sequence[str], text: Sequence[str]) -> Sequence[str]:
    """Return the words of a text that decide how strong those of a question are in it."""
    if len(text) <= MAX_NEAR:
        return text
    words = dict.fromkeys(text)
    near = list(itertools.islice(words, MAX_NEAR))
    return near if len(near) == len(words) else [*near, *(word for word in query if word in words)]
