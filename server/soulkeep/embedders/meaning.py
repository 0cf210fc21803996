"""The embedders that find by meaning: two encoders as one vector, and the lighter one of them alone.

MiniLM finds an answer in other words, in English; the Universal Sentence Encoder in 16 languages and
across them. Each part of the vector is of one encoder, so that the two can be weighed apart.
"""

import ctypes
import functools
import gc
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from soulkeep.embedders import Embedded, Embedder, Kept, Weighting, whole
from soulkeep.embedders.tokens import release_tokenizer
from soulkeep.embedders.word_matches import WordMatches
from soulkeep.search.words import is_english

if TYPE_CHECKING:
    from soulkeep.embedders.layers import Floats
    from soulkeep.embedders.minilm import MiniLM
    from soulkeep.embedders.universal import UniversalEncoder

MINILM_DIMENSIONS, UNIVERSAL_DIMENSIONS = 384, 512
"""MiniLM's dimensions come first in the vector of both."""

# How much the cosines of both count beside the share of a question that a text covers: chosen together
# on dialogues, short memories and sixteen languages, and flat there. `bench/quality.py` measures them.
ENGLISH = Weighting((1.8, 0.9), chance=1.12)
OTHERS = Weighting((0.45, 3.0), chance=0.86)
MIXED = Weighting((0.0, 3.0), chance=0.9)
ALONE = Weighting((3.0,), chance=0.78)

TELLING = 1_000
"""By how many of its first characters is decided whether a text is English: what is kept stays small."""

UNRELATED = 0.3
"""Up to this cosine of MiniLM's vectors two words have nothing to do with each other."""

_TEXTS = 64
"""Texts whose tokens are in memory at once."""


# One of each in a process, however many homes it has open.
_MINILM: "Kept[MiniLM]" = Kept("meaning", lambda: import_module("soulkeep.embedders.minilm").MiniLM())


@functools.cache
def _universal(cache: Path) -> "Kept[UniversalEncoder]":
    return Kept("meaning", lambda: import_module("soulkeep.embedders.universal").UniversalEncoder(cache))


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

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (ALONE,)

    def load(self) -> None:
        """Load what embedding needs, once, whichever threads ask for it.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        Kept.load(*self._models)

    def release(self) -> None:
        """Give back all memory that can be given back; the next use loads the models again."""
        for model in self._models:
            model.release()
        release_tokenizer()
        gc.collect()
        # Else glibc would keep for later what nothing uses.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
        if trim is not None:
            trim(0)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; a blank one has the vector of no words.

        Tokens are counted by the multilingual tokenizer, which knows the encoder's 16 languages.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        self.load()
        embeddings: list[bytes] = []
        count = 0
        for begin in range(0, len(texts), _TEXTS):
            some = [whole(text) for text in texts[begin : begin + _TEXTS]]
            tokens = self._universal.get().tokens(some)
            embeddings += [vector.astype("<f4").tobytes() for vector in self._encode(some, tokens)]
            count += sum(map(len, tokens))
        return Embedded(tuple(embeddings), count)

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
