"""The default embedder: WordLlama's static token vectors, 256 dimensions, read from its wheel.

The package's own loader looks for its tokenizer in a folder that the wheel does not have and then asks
a hub for it, so its two files are read here directly and the package itself is never imported.
"""

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from soulkeep.embedders import Embedded
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.models import Embedding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

DIMENSIONS = 256

SMOOTHING = 1e-3
"""The constant a of smooth inverse frequency, w = a / (a + p): Arora, Liang and Ma, "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017."""

_VOCABULARY = 32_000
_FIRST_WORD = 259
# Llama's vocabulary lists its bytes first and then its words by falling frequency.

_REINSTALL = "reinstall it with `pip install --force-reinstall wordllama`"


class WordLlama:
    """The mean of a text's token vectors, frequent tokens weighing less, at unit length.

    The weight of token t is a / (a + p), where p = 1 / (rank · ln 32000) is the frequency that Zipf's
    law gives its rank in the vocabulary. The model is loaded on first use.
    """

    identity = f"wordllama-l2_supercat-sif:{DIMENSIONS}:unit"

    def __init__(self) -> None:
        self._loading = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; see Embedder."""
        with self._loading:
            table, weights, tokenizer = self._model
        # One by one: a batch would be padded to its longest text.
        tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        embeddings = tuple(_pooled(table, weights, ids) for ids in tokens)
        return Embedded(embeddings, sum(len(ids) for ids in tokens))

    @cached_property
    def _model(self) -> "tuple[NDArray[np.float16], NDArray[np.float32], Tokenizer]":
        # Nothing this slow may run before the first protocol answer.
        import numpy as np
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = _package_folder()
        weights_file = folder / "weights" / "l2_supercat_256.safetensors"
        tokenizer_file = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        for file in (weights_file, tokenizer_file):
            if not file.is_file():
                raise EmbedderUnavailableError("wordllama", f"{file} is missing", _REINSTALL)
        (table,) = load_file(weights_file).values()
        ranks = np.maximum(np.arange(len(table), dtype=np.float32) - (_FIRST_WORD - 1), 1)
        frequencies = 1 / (ranks * math.log(_VOCABULARY))
        return (
            table,
            (SMOOTHING / (SMOOTHING + frequencies)).astype(np.float32),
            Tokenizer.from_file(str(tokenizer_file)),
        )


def _pooled(
    table: "NDArray[np.float16]", weights: "NDArray[np.float32]", tokens: list[int]
) -> Embedding:
    pooled = weights[tokens] @ table[tokens].astype("<f4")
    unit: Embedding = (pooled / math.sqrt(float(pooled @ pooled))).astype("<f4").tobytes()
    return unit


def _package_folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbedderUnavailableError("wordllama", "the package is not installed", _REINSTALL)
    return Path(spec.origin).parent
