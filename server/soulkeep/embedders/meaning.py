"""The embedders that find by meaning: two encoders as one vector, and the lighter one of them alone.

MiniLM finds an answer in other words, in English; the Universal Sentence Encoder in 16 languages and
across them. Each part of the vector is of one encoder, so that the two can be weighed apart.
"""

import ctypes
import functools
import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from platformdirs import user_cache_path

from soulkeep.embedders import Embedded, Weighting
from soulkeep.embedders.tokens import release_tokenizer
from soulkeep.embedders.word_matches import WordMatches
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.progress import tell
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

_Model = TypeVar("_Model")


class _Kept(Generic[_Model]):
    """A model that is loaded on first use, by one thread, and kept until it is released."""

    def __init__(self, load: Callable[[], _Model]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._model: _Model | None = None

    def get(self) -> _Model:
        """Return the model, loaded if it is not; another thread that loads it is waited for."""
        with self._lock:
            if self._model is None:
                tell("Loading the model")
                try:
                    self._model = self._load()
                except ImportError as error:
                    raise EmbedderUnavailableError(
                        "meaning", f"a package cannot be used ({error})", "install soulkeep again"
                    ) from error
            return self._model

    def release(self) -> None:
        """Forget the model; a call that still uses it goes on with it."""
        with self._lock:
            self._model = None


class Universal:
    """The multilingual encoder alone: a fifth of the time, and weaker on English in other words."""

    identity = f"use-multilingual-v3:{UNIVERSAL_DIMENSIONS}:unit"
    parts = (UNIVERSAL_DIMENSIONS,)
    is_quick = is_local = True
    price = 0.0

    def __init__(self, cache: Path | None = None) -> None:
        """Keep the encoder's laid out weights in `cache`, by default the user's cache folder."""
        self._universal = _universal(cache)

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (ALONE,)

    def weighting(self, query: str, text: str) -> Weighting:
        """Return the one weighting that there is; see Embedder."""
        return ALONE

    def load(self) -> None:
        """Load what embedding needs, once, whichever threads ask for it.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        self._universal.get()

    def release(self) -> None:
        """Give back all memory that can be given back; the next use loads the model again."""
        self._universal.release()
        _give_back_memory()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; a blank one has the vector of no words. Tokens are the encoder's own.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        encoder = self._universal.get()
        return _embedded(texts, partial(_encode_universal, encoder))

    def embed_query(self, query: str) -> Embedded:
        """Embed a question: as a text; see embed."""
        return self.embed([query])


class Meaning:
    """Both encoders: x = [MiniLM | Universal] / sqrt(2), where each part is a vector of length one.

    So a cosine of two vectors is the mean of the encoders' cosines. A text in a script that Universal
    cannot read has MiniLM's vector alone, at length one.
    """

    identity = f"minilm-l6-v2+use-multilingual-v3:{MINILM_DIMENSIONS + UNIVERSAL_DIMENSIONS}:unit"
    parts = (MINILM_DIMENSIONS, UNIVERSAL_DIMENSIONS)
    is_quick = is_local = True
    price = 0.0

    def __init__(self, cache: Path | None = None) -> None:
        """Keep the laid out weights of Universal in `cache`, by default the user's cache folder."""
        self._universal = _universal(cache)
        self._minilm = _MINILM
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

    def load(self) -> None:
        """Load what embedding needs, once, whichever threads ask for it.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        self._minilm.get()
        self._universal.get()

    def release(self) -> None:
        """Give back all memory that can be given back; the next use loads the models again."""
        self._minilm.release()
        self._universal.release()
        self.strengths.release()
        _give_back_memory()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; a blank one has the vector of no words.

        Tokens are counted by the multilingual tokenizer, which knows the encoder's 16 languages.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        minilm, universal = self._minilm.get(), self._universal.get()
        return _embedded(texts, partial(_encode_both, minilm, universal))

    def embed_query(self, query: str) -> Embedded:
        """Embed a question: as a text; see embed."""
        return self.embed([query])

    def word_vectors(self, words: Sequence[str]) -> "Floats":
        """Return MiniLM's unit vectors of single words, one a row, 384 wide; zeros for unknown ones.

        Of other scripts than Latin the vocabulary has single characters, which say nothing.

        Raises:
            EmbedderUnavailableError: A package is missing or has another file.
        """
        return self._minilm.get().word_vectors([word if word.isascii() else "" for word in words])


def _encode_universal(encoder: "UniversalEncoder", texts: Sequence[str]) -> "tuple[Floats, int]":
    tokens = encoder.tokens(texts)
    return encoder.encode(tokens), sum(map(len, tokens))


def _encode_both(
    minilm: "MiniLM", universal: "UniversalEncoder", texts: Sequence[str]
) -> "tuple[Floats, int]":
    import numpy as np

    from soulkeep.embedders.layers import unit_rows

    tokens = universal.tokens(texts)
    vectors = universal.encode(tokens)
    # A script that the model does not know gives all texts in it much the same vector.
    vectors[[not universal.knows(some) for some in tokens]] = 0
    return unit_rows(np.hstack((minilm.encode(texts), vectors))), sum(map(len, tokens))


def _embedded(texts: Sequence[str], encode: "Callable[[Sequence[str]], tuple[Floats, int]]") -> Embedded:
    embeddings: list[bytes] = []
    tokens = 0
    for some in _groups([_joined(text) for text in texts]):
        vectors, count = encode(some)
        embeddings += [vector.astype("<f4").tobytes() for vector in vectors]
        tokens += count
    return Embedded(tuple(embeddings), tokens)


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(texts), _TEXTS):
        yield texts[begin : begin + _TEXTS]


def _joined(text: str) -> str:
    """Return a text with the halves of its surrogate pairs joined, and a sign for one that is alone."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _load_minilm() -> "MiniLM":
    from soulkeep.embedders.minilm import MiniLM

    return MiniLM()


def _load_universal(cache: Path | None) -> "UniversalEncoder":
    from soulkeep.embedders.universal import UniversalEncoder

    return UniversalEncoder(cache or user_cache_path("soulkeep", appauthor=False))


# One of each in a process, however many homes it has open.
_MINILM = _Kept(_load_minilm)


@functools.cache
def _universal(cache: Path | None) -> "_Kept[UniversalEncoder]":
    return _Kept(partial(_load_universal, cache))


def _give_back_memory() -> None:
    """Let the system have the memory that nothing uses; glibc would keep it for later."""
    release_tokenizer()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
