"""The default embedder: WordLlama's static token vectors, 256 dimensions, read from its wheel.

The package's own loader looks for its tokenizer in a folder that the wheel does not have and then asks
a hub for it, so its two files are read here directly and the package itself is never imported.
"""

import itertools
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import cache, cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from soulkeep.embedders import Embedded, Weighting
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.identifiers import is_exact
from soulkeep.models import Embedding
from soulkeep.progress import tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_Sized = TypeVar("_Sized", bound=Sized)

DIMENSIONS = 256

WEIGHTING = (0.8,)
"""How much a cosine counts beside the share of a question that a text covers (`bench/quality.py`)."""

SMOOTHING = 1e-3
"""The constant a of smooth inverse frequency, w = a / (a + p): Arora, Liang and Ma, "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017."""

UNRELATED = 0.2
"""Up to this cosine two words have nothing to do with each other."""

MAX_WORDS = 16_384
"""Words whose vectors are kept in memory, 1 KiB each."""

MAX_NEAR = 2_000
"""Words of a text, each counted once, that are compared by meaning; the others count where they are the
question's own."""

MAX_COMPARED = 8_192
"""Words of texts that are compared at once."""

MAX_TOKENS = 2_048
"""Tokens whose vectors are summed at once, 1 KiB each: as many as a processor's cache holds."""

MAX_CHARACTERS = 100_000
"""Characters that are turned into tokens at once, at some hundred bytes of memory each."""

_VOCABULARY = 32_000
_EMPTY = 0
"""The row of words that have no vector."""

_UNKNOWN, _FIRST_WORD = 0, 259
# Llama's vocabulary lists its bytes first and then its words by falling frequency.

_REINSTALL = "reinstall it with `pip install --force-reinstall wordllama`"


class WordLlama:
    """The mean of a text's token vectors, frequent tokens weighing less, at unit length.

    The weight of token t is a / (a + p), where p = 1 / (rank · ln 32000) is the frequency that Zipf's
    law gives its rank in the vocabulary. The model is loaded on first use.
    """

    identity = f"wordllama-l2_supercat-sif:{DIMENSIONS}:unit"
    parts = (DIMENSIONS,)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}
        self._filled = _EMPTY + 1

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (WEIGHTING,)

    def weighting(self, query: str, text: str) -> Weighting:
        """Return the one weighting that there is; see Embedder."""
        return WEIGHTING

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; see Embedder."""
        model = self._loaded()
        embeddings: list[Embedding] = []
        count = 0
        # The tokens of many long texts at once would take far more memory than the texts.
        for some in _groups(texts, MAX_CHARACTERS):
            tokens = model.list_tokens(some)
            count += sum(map(len, tokens))
            for group in _groups(tokens):
                embeddings += map(_unit, model.pooled(group, model.weights))
        return Embedded(tuple(embeddings), count)

    def embed_query(self, query: str, weights: Mapping[str, float]) -> Embedded:
        """Embed a question as the weighted sum of its words; see Embedder."""
        if not weights:
            return self.embed([query])
        model = self._loaded()
        # The vectors of a number's digits add up to those of any other number that has them.
        words = [word for word in weights if not is_exact(word)] or list(weights)
        tokens = [model.tokens(word) for word in words]
        pooled = sum(
            weights[word] * model.table[ids].astype("<f4").sum(axis=0)
            for word, ids in zip(words, tokens, strict=True)
        )
        return Embedded((_unit(pooled),), sum(len(ids) for ids in tokens))

    def strengths(
        self, query: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[float]]:
        """Return (cosine - 0.2) / 0.8 of each query word and its nearest word in each text, 0 to 1.

        A word with digits or signs is near to itself alone: 100218 has nothing of 100821.

        A text's best match per question word, summed, is late interaction: Khattab and Zaharia,
        "ColBERT", SIGIR 2020, here over static vectors of words.
        """
        if not query or not any(texts):
            return [[0.0] * len(query) for _ in texts]
        compared = [_compared(query, text) for text in texts]
        with self._lock:
            return [
                strengths
                for group in _groups(compared, MAX_COMPARED)
                for strengths in self._strengths(query, group)
            ]

    def _strengths(self, query: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        import numpy as np

        places = self._places([*query, *itertools.chain.from_iterable(texts)])
        asked, rows = places[: len(query)], places[len(query) :]
        is_used = np.zeros(self._filled, bool)
        is_used[rows] = True
        used = np.flatnonzero(is_used)
        cosines = self._model.words[used] @ self._model.words[asked].T
        turn = np.empty(len(is_used), np.intp)
        turn[used] = np.arange(len(used))
        strong = np.clip((cosines - UNRELATED) / (1 - UNRELATED), 0, 1)[turn[rows]]
        lengths = np.array([len(text) for text in texts])
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        filled = lengths > 0
        best = np.zeros((len(texts), len(query)), dtype=np.float32)
        if filled.any():
            best[filled] = np.maximum.reduceat(strong, starts[filled], axis=0)
        for column, word in enumerate(query):
            if is_exact(word):
                best[:, column] = [word in text for text in texts]
        strengths: list[list[float]] = best.tolist()
        return strengths

    def _places(self, words: Sequence[str]) -> "NDArray[np.intp]":
        """Return the row of each word in the matrix of word vectors; the empty one for an exact word."""
        import numpy as np

        try:
            return np.fromiter(map(self._rows.__getitem__, words), np.intp, len(words))
        except KeyError:
            if len(self._rows) > MAX_WORDS:
                self._rows, self._filled = {}, _EMPTY + 1
            missing = [word for word in dict.fromkeys(words) if word not in self._rows]
            near = [word for word in missing if not is_exact(word)]
            self._model.store_words(self._filled, near)
            # A memory may have many numbers that no other has, and they need no vectors.
            self._rows |= dict.fromkeys(missing, _EMPTY)
            self._rows |= zip(near, itertools.count(self._filled), strict=False)
            self._filled += len(near)
            return np.fromiter(map(self._rows.__getitem__, words), np.intp, len(words))

    def _loaded(self) -> "_Model":
        with self._lock:
            return self._model

    @cached_property
    def _model(self) -> "_Model":
        return _Model(_package_folder())


class _Model:
    """The two files of the package in memory, and the vectors of the words met so far."""

    def __init__(self, folder: Path) -> None:
        tell("Loading the model")
        # The products here are small: waking other threads for them takes longer than the work.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Nothing this slow may run before the first protocol answer.
        import numpy as np
        from safetensors.numpy import load_file

        weights_file = _existing(folder / "weights" / "l2_supercat_256.safetensors")
        self.table: NDArray[np.float16]
        (self.table,) = load_file(weights_file).values()
        self.tokenizer = load_tokenizer()
        ranks = np.maximum(np.arange(len(self.table), dtype=np.float32) - (_FIRST_WORD - 1), 1)
        frequencies = 1 / (ranks * math.log(_VOCABULARY))
        self.weights = (SMOOTHING / (SMOOTHING + frequencies)).astype(np.float32)
        self._equal = np.ones_like(self.weights)
        # Memory that is not written to takes no room, and growing would copy it.
        self.words = np.empty((2 * MAX_WORDS, DIMENSIONS), dtype=np.float32)
        self.words[_EMPTY] = 0

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids or [_UNKNOWN]

    def list_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, on all processors; none is padded to another's length."""
        encode = partial(self.tokenizer.encode_batch_fast, add_special_tokens=False)
        return [encoded.ids or [_UNKNOWN] for encoded in encode(texts)]

    def pooled(
        self, texts: Sequence[Sequence[int]], weights: "NDArray[np.float32]"
    ) -> "NDArray[np.float32]":
        """Return the weighted sum of each text's token vectors, one a row; `weights` are by token."""
        import numpy as np

        ids = np.fromiter(itertools.chain.from_iterable(texts), np.intp)
        used, columns = np.unique(ids, return_inverse=True)
        shares = np.zeros((len(texts), len(used)), np.float32)
        np.add.at(
            shares, (np.repeat(np.arange(len(texts)), list(map(len, texts))), columns), weights[ids]
        )
        sums: NDArray[np.float32] = shares @ self.table[used].astype(np.float32)
        return sums

    def store_words(self, start: int, words: list[str]) -> None:
        """Put the unit vectors of words into the matrix, from row `start` on."""
        import numpy as np

        if not words:
            return
        while start + len(words) > len(self.words):
            self.words = np.concatenate((self.words, np.empty_like(self.words)))
        for group in _groups([self.tokens(word) for word in words]):
            sums = self.pooled(group, self._equal)
            self.words[start : start + len(group)] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
            start += len(group)


def _compared(query: Sequence[str], text: Sequence[str]) -> list[str]:
    """Return the words of a text that decide how strong those of a question are in it."""
    words = dict.fromkeys(text)
    near = list(itertools.islice(words, MAX_NEAR))
    return near if len(near) == len(words) else [*near, *(word for word in query if word in words)]


def _groups(texts: Sequence[_Sized], most: int = MAX_TOKENS) -> Iterator[list[_Sized]]:
    """Yield the texts together while they have no more than that in all, a longer one by itself."""
    group: list[_Sized] = []
    size = 0
    for text in texts:
        if group and size + len(text) > most:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _unit(vector: "NDArray[np.float32]") -> Embedding:
    unit: Embedding = (vector / math.sqrt(float(vector @ vector))).astype("<f4").tobytes()
    return unit


@cache
def load_tokenizer() -> "Tokenizer":
    """Return the tokenizer of the package, the same object each time.

    Raises:
        EmbedderUnavailableError: The package or its file is missing.
    """
    from tokenizers import Tokenizer

    file = _existing(_package_folder() / "tokenizers" / "l2_supercat_tokenizer_config.json")
    return Tokenizer.from_file(str(file))


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise EmbedderUnavailableError("wordllama", f"{file} is missing", _REINSTALL)
    return file


def _package_folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbedderUnavailableError("wordllama", "the package is not installed", _REINSTALL)
    return Path(spec.origin).parent
