"""The embedders that find by meaning: two encoders as one vector, and the lighter one of them alone.

MiniLM finds an answer in other words, in English; the Universal Sentence Encoder in 16 languages and
across them. Each part of the vector is of one encoder, so that the two can be weighed apart.

Single words are compared by static vectors. A text's best match per question word, summed, is late
interaction: Khattab and Zaharia, "ColBERT", SIGIR 2020, here over vectors that do not depend on the
words around.
"""

import functools
import gc
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib import import_module
from operator import is_not
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from soulkeep.embedders import Embedded, Embedder, Kept, Weighting, groups, whole
from soulkeep.embedders.tokens import release_tokenizer
from soulkeep.search.words import is_english, is_exact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from soulkeep.embedders.layers import Floats
    from soulkeep.embedders.minilm import MiniLM
    from soulkeep.embedders.universal import UniversalEncoder

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

        kept, places = self._kept, list(map(self._rows.get, words))
        if kept is None or not all(map(is_not, places, itertools.repeat(None))):
            if self._filled > MAX_WORDS:
                self.release()
            elif len(self._rows) - self._filled > MAX_WORDS:  # too many words without a vector
                self._rows = {word: place for word, place in self._rows.items() if place > _EMPTY}
            missing = dict.fromkeys(itertools.filterfalse(self._rows.__contains__, words))
            near = [word for word in missing if not is_exact(word)]
            if near or self._kept is None:
                self._kept = self._with(near)
            # A memory may have many numbers that no other has, and they need no vectors.
            exact = (word for word in missing if is_exact(word))
            self._rows |= zip(exact, itertools.count(-1 - len(self._rows), -1))
            self._rows |= zip(near, itertools.count(self._filled))
            self._filled += len(near)
            kept, places = self._kept, list(map(self._rows.get, words))
        return kept, np.array(places, np.intp)

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


MINILM_DIMENSIONS, UNIVERSAL_DIMENSIONS = 384, 512
"""MiniLM's dimensions come first in the vector of both."""

# How much the cosines of both count beside the share of a question that a text covers: chosen together
# on dialogues, short memories and sixteen languages, and flat there. `bench/quality.py` measures them.
ENGLISH = Weighting((1.8, 0.9), chance=1.05)
OTHERS = Weighting((0.8, 2.7), chance=1.09)
MIXED = Weighting((0.0, 3.2), chance=0.96)
ALONE = Weighting((3.0,), chance=0.78)

TELLING = 1_000
"""By how many of its first characters is decided whether a text is English: what is kept stays small."""

UNRELATED = 0.3
"""Up to this cosine of MiniLM's vectors two words have nothing to do with each other."""

_TEXTS = 64
"""Texts whose tokens are in memory at once."""

SHORT = 1_000
"""Characters that threads have embedded together: each of eight short texts takes little more than half
the time of one alone."""

_LEAST = SHORT // 8
"""A shorter text counts as one of so many: of more than eight each would hardly take less time."""

_Pair = tuple[bytes, int]
"""The vector of a text, and how many tokens it has."""

_Work = Callable[[Sequence[str]], Sequence[_Pair]]


def _size(texts: Sequence[str]) -> int:
    return sum(max(len(text), _LEAST) for text in texts)


@dataclass(eq=False)
class Together:
    """Embeds at once what threads ask for while one of them embeds; who is alone waits for nobody."""

    _waiting: "list[tuple[Sequence[str], Future[Sequence[_Pair]]]]" = field(default_factory=list)
    _is_busy: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, work: _Work, texts: Sequence[str]) -> Sequence[_Pair]:
        """Return what `work` makes of texts; it is the same for all threads, any of which does it.

        Raises:
            As `work`.
        """
        mine: Future[Sequence[_Pair]] = Future()
        with self._changed:
            self._waiting.append((texts, mine))
        while not mine.done():
            with self._changed:
                self._changed.wait_for(lambda: mine.done() or not self._is_busy)
                if mine.done():
                    break
                taken = next(groups(self._waiting, SHORT, lambda one: _size(one[0])))
                del self._waiting[: len(taken)]
                self._is_busy = True
            try:
                made = iter(work([text for some, _ in taken for text in some]))
                for some, asked in taken:
                    asked.set_result(list(itertools.islice(made, len(some))))
            finally:
                with self._changed:
                    # Where it failed, each of the others finds out by itself.
                    self._waiting[:0] = [one for one in taken if not (one[1].done() or one[1] is mine)]
                    self._is_busy = False
                    self._changed.notify_all()
        return mine.result()


# One of each in a process, however many homes it has open.
_MINILM: "Kept[MiniLM]" = Kept("meaning", lambda: import_module("soulkeep.embedders.minilm").MiniLM())


@functools.cache
def _universal(cache: Path) -> "Kept[UniversalEncoder]":
    return Kept("meaning", lambda: import_module("soulkeep.embedders.universal").UniversalEncoder(cache))


@functools.cache
def _together(kind: type[Embedder], model: "Kept[UniversalEncoder]") -> Together:
    """Return what all homes of a process have one of, for each kind of embedder."""
    return Together()


def _trim() -> None:
    """Give the system back what nothing uses any more; glibc would keep it for later."""
    import ctypes  # not at each start

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


class Universal(Embedder):
    """The multilingual encoder alone: a fifth of the time, and weaker on English in other words."""

    identity = f"use-multilingual-v3:{UNIVERSAL_DIMENSIONS}:unit"
    parts: Sequence[int] = (UNIVERSAL_DIMENSIONS,)
    is_quick = is_local = True
    price: float | None = 0.0

    def __init__(self, cache: Path | None = None) -> None:
        """Keep the encoder's laid out weights in `cache`, by default the user's cache folder."""
        self._universal = _universal(cache or user_cache_path("soulkeep", appauthor=False))
        self._models: tuple[Kept[Any], ...] = (self._universal,)
        self._together = _together(type(self), self._universal)

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (ALONE,)

    def load(self) -> None:
        """Load what embedding needs, once, whichever threads ask for it.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        if Kept.load(*self._models):
            _trim()

    def release(self) -> None:
        """Give back all memory that can be given back; the next use loads the models again."""
        for model in self._models:
            model.release()
        release_tokenizer()
        gc.collect()
        _trim()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; a blank one has the vector of no words.

        Tokens are counted by the multilingual tokenizer, which knows the encoder's 16 languages.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        self.load()
        # Many or long ones by themselves: the encoders let others in between their parts.
        is_short = 0 < _size(texts) <= SHORT
        pairs = self._together(self._embedded, texts) if is_short else self._embedded(texts)
        return Embedded(tuple(vector for vector, _ in pairs), sum(count for _, count in pairs))

    def _embedded(self, texts: Sequence[str]) -> list[_Pair]:
        pairs: list[_Pair] = []
        for begin in range(0, len(texts), _TEXTS):
            some = [whole(text) for text in texts[begin : begin + _TEXTS]]
            tokens = self._universal.get().tokens(some)
            vectors = (vector.astype("<f4").tobytes() for vector in self._encode(some, tokens))
            pairs += zip(vectors, map(len, tokens), strict=True)
        return pairs

    def _encode(self, texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> "Floats":
        """Return the vectors of texts, one a row, which have these tokens of the encoder."""
        return self._universal.get().encode(tokens)


class Meaning(Universal):
    """Both encoders: x = [MiniLM | Universal] / sqrt(2), where each part is a vector of length one.

    So a cosine of two vectors is the mean of the encoders' cosines. A text in a script that Universal
    cannot read has MiniLM's vector alone, at length one.
    """

    identity = f"minilm-l6-v2+use-multilingual-v3:{MINILM_DIMENSIONS + UNIVERSAL_DIMENSIONS}:unit"
    parts = (MINILM_DIMENSIONS, UNIVERSAL_DIMENSIONS)

    def __init__(self, cache: Path | None = None) -> None:
        """Keep the laid out weights of Universal in `cache`, by default the user's cache folder."""
        super().__init__(cache)
        self._minilm = _MINILM
        self._models = (self._minilm, self._universal)
        self.strengths = WordMatches(self.word_vectors, UNRELATED)

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return how a question is compared with texts in English, and with others; see Embedder."""
        return (ENGLISH, MIXED) if is_english(query) else (MIXED, OTHERS)

    def weighting(self, query: str, text: str) -> Weighting:
        """Return how two texts are compared: both English, neither, or one of them; see Embedder."""
        one, other = is_english(query), is_english(text[:TELLING])
        if one != other:
            return MIXED
        return ENGLISH if one else OTHERS

    def release(self) -> None:
        """Give back all memory that can be given back; the next use loads the models again."""
        self.strengths.release()
        super().release()

    def _encode(self, texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> "Floats":
        import numpy as np

        from soulkeep.embedders.layers import unit_rows

        universal = self._universal.get()
        vectors = universal.encode(tokens)
        # A script that the model does not know gives all texts in it much the same vector.
        vectors[[not universal.knows(some) for some in tokens]] = 0
        return unit_rows(np.hstack((self._minilm.get().encode(texts), vectors)))

    def word_vectors(self, words: Sequence[str]) -> "Floats":
        """Return MiniLM's unit vectors of single words, one a row, 384 wide; zeros for unknown ones.

        Of other scripts than Latin the vocabulary has single characters, which say nothing.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        return self._minilm.get().word_vectors([word if word.isascii() else "" for word in words])
