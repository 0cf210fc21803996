"""An embedder of single words: WordLlama's static token vectors, 256 dimensions, read from its wheel.

The package's own loader looks for its tokenizer in a folder that the wheel does not have and then asks
a hub for it, so its two files are read here directly and the package itself is never imported.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from soulkeep.embedders import Embedded, Embedder, Kept, Weighting, groups
from soulkeep.embedders.meaning import WordMatches
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.models import Embedding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


DIMENSIONS = 256

WEIGHTING = Weighting((0.8,), chance=0.47)
"""How much a cosine counts beside the share of a question that a text covers (`bench/quality.py`)."""

SMOOTHING = 1e-3
"""The constant a of smooth inverse frequency, w = a / (a + p): Arora, Liang and Ma, "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017."""

UNRELATED = 0.2
"""Up to this cosine two words have nothing to do with each other."""

MAX_TOKENS = 2_048
"""Tokens whose vectors are summed at once, 1 KiB each: as many as a processor's cache holds."""

MAX_CHARACTERS = 100_000
"""Characters that are turned into tokens at once, at some hundred bytes of memory each."""

_VOCABULARY = 32_000
_UNKNOWN, _FIRST_WORD = 0, 259
# Llama's vocabulary lists its bytes first and then its words by falling frequency.

_REINSTALL = "reinstall it with `pip install --force-reinstall wordllama`"


class WordLlama(Embedder):
    """The mean of a text's token vectors, frequent tokens weighing less, at unit length.

    The weight of token t is a / (a + p), where p = 1 / (rank · ln 32000) is the frequency that Zipf's
    law gives its rank in the vocabulary. The model is loaded on first use.
    """

    identity = f"wordllama-l2_supercat-sif:{DIMENSIONS}:unit"
    parts: Sequence[int] = (DIMENSIONS,)
    is_quick = is_local = True
    price: float | None = 0.0

    def __init__(self) -> None:
        self._kept = Kept("wordllama", lambda: _model_in(_package_folder()))
        self.strengths = WordMatches(lambda words: self._kept.get().word_vectors(words), UNRELATED)

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (WEIGHTING,)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; see Embedder."""
        self.load()
        model = self._kept.get()
        embeddings: list[Embedding] = []
        count = 0
        # The tokens of many long texts at once would take far more memory than the texts.
        for some in groups(texts, MAX_CHARACTERS, len):
            tokens = model.list_tokens(some)
            count += sum(map(len, tokens))
            for group in groups(tokens, MAX_TOKENS, len):
                for vector in model.pooled(group, model.weights):
                    unit = vector / math.sqrt(float(vector @ vector))
                    embeddings.append(unit.astype("<f4").tobytes())
        return Embedded(tuple(embeddings), count)

    def load(self) -> None:
        """Load the model; see Embedder."""
        Kept.load(self._kept)

    def release(self) -> None:
        """Forget the model; see Embedder."""
        self._kept.release()
        _model_in.cache_clear()
        self.strengths.release()


class _Model:
    """The two files of the package in memory, and the vectors of the words met so far."""

    def __init__(self, folder: Path) -> None:
        # Nothing this slow may run before the first protocol answer.
        import numpy as np
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        weights = folder / "weights" / "l2_supercat_256.safetensors"
        tokenizer = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        for file in (weights, tokenizer):
            if not file.is_file():
                raise EmbedderUnavailableError("wordllama", f"{file} is missing", _REINSTALL)
        self.table: NDArray[np.float16]
        (self.table,) = load_file(weights).values()
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        ranks = np.maximum(np.arange(len(self.table), dtype=np.float32) - (_FIRST_WORD - 1), 1)
        frequencies = 1 / (ranks * math.log(_VOCABULARY))
        self.weights = (SMOOTHING / (SMOOTHING + frequencies)).astype(np.float32)
        self._equal = np.ones_like(self.weights)

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

    def word_vectors(self, words: Sequence[str]) -> "NDArray[np.float32]":
        """Return the unit vectors of words, one a row."""
        import numpy as np

        vectors = np.empty((len(words), DIMENSIONS), np.float32)
        tokens = [
            self.tokenizer.encode(word, add_special_tokens=False).ids or [_UNKNOWN] for word in words
        ]
        start = 0
        for group in groups(tokens, MAX_TOKENS, len):
            sums = self.pooled(group, self._equal)
            vectors[start : start + len(group)] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
            start += len(group)
        return vectors


_model_in = cache(_Model)
"""Returns the model of a folder, the same object each time: a process may open several homes."""


def _package_folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbedderUnavailableError("wordllama", "the package is not installed", _REINSTALL)
    return Path(spec.origin).parent
