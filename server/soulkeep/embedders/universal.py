"""Google's Universal Sentence Encoder, multilingual 3, 512 dimensions: 16 languages in one space.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", ACL 2020, convolutional
form: three branches look at 2, 3 and 5 tokens in a row; the sum of what they see in a text goes
through a small network.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soulkeep.embedders.layers import Floats, Linear, normalise_layer, unit_rows
from soulkeep.embedders.tokens import load_tokenizer
from soulkeep.embedders.universal_weights import (
    CHUNKS,
    ORDERS,
    load_weights,
)

DIMENSIONS = 512


_BRANCH, _FEATURES = 256, 1_280
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
        self._unknown: int = self._tokenizer.unk_id()
        weights = load_weights(cache)
        self._table, self._floats, self._linear = weights.table, weights.floats, weights.linear
        parts = [self._linear[f"proj{order}"] for order in ORDERS]
        self._projection = Linear(
            tuple(part.weights[0] for part in parts),
            np.hstack([part.scale for part in parts]),
            self._joined("proj_b"),
        )
        self._gain, self._shift = self._joined("ln_g"), self._joined("ln_b")
        self._lock = threading.Lock()
        self._room = np.empty(_FEATURES * DIMENSIONS, np.float32)

    def _joined(self, name: str) -> Floats:
        return np.concatenate([self._floats[f"{name}{order}"] for order in ORDERS])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text's tokens, with the marks of its begin and end."""
        # A list of them would be shared out among threads, and starting those takes longer.
        return [self._tokenizer.encode(text, add_bos=True, add_eos=True) for text in texts]

    def knows(self, tokens: Sequence[int]) -> bool:
        """Whether the model knows the script of a text: fewer than a quarter of its tokens are unknown.

        Of Hindi, Bengali or Georgian nearly every second one is, the others being the spaces.
        """
        return 4 * tokens.count(self._unknown) < len(tokens)

    def encode(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Return the vectors of texts by the ids of their tokens, one a row."""
        sums = np.empty((len(tokens), _FEATURES), np.float32)
        for places in _batches(tokens):
            if len(tokens[places[0]]) > _WINDOW:
                sums[places[0]] = self._long_sum(tokens[places[0]])
                continue
            lengths = [len(tokens[place]) for place in places]
            features = self._features(np.concatenate([tokens[place] for place in places]), lengths)
            sums[places] = np.add.reduceat(features, np.cumsum([0, *lengths[:-1]]), axis=0)
        with self._lock:
            return self._head(sums, np.array([len(some) for some in tokens], np.float32)[:, None])

    def _long_sum(self, tokens: Sequence[int]) -> Floats:
        total = np.zeros(_FEATURES, np.float32)
        for begin in range(0, len(tokens), _WINDOW):
            first = max(0, begin - _HALO)
            seen = np.array(tokens[first : begin + _WINDOW + _HALO])
            features = self._features(seen, [len(seen)])
            total += features[begin - first :][:_WINDOW].sum(axis=0)
        return total

    def _features(self, ids: NDArray[np.intp], lengths: Sequence[int]) -> Floats:
        """Return what each token means between its neighbours; texts do not see each other."""
        features = np.empty((len(ids), _FEATURES), np.float32)
        embedded, seen = features[:, :DIMENSIONS], _neighbours(tuple(lengths))
        chunks = ids % CHUNKS
        embedded[...] = self._table.take(ids)
        embedded *= self._floats["scale"][chunks, None]
        embedded += self._floats["lo"][chunks, None]
        with self._lock:
            projected = self._apply(self._projection, embedded)
            normalise_layer(projected, self._gain, self._shift)
            for branch, order in enumerate(ORDERS):
                own = projected[:, branch * _BRANCH :][:, :_BRANCH]
                looked_at = seen[:, 2 - _BEFORE[order] :][:, :order]
                features[:, DIMENSIONS + branch * _BRANCH :][:, :_BRANCH] = self._convolved(
                    own, looked_at, order
                )
        return normalise_layer(features, self._floats["ln_g"], self._floats["ln_b"])

    def _convolved(self, own: Floats, looked_at: NDArray[np.intp], order: int) -> Floats:
        """Add to each row what it and its neighbours say together, twice."""
        # The last row stays zero: it stands for what is before and behind a text.
        padded = np.zeros((len(own) + 1, _BRANCH), np.float32)
        padded[:-1] = own
        for step in (1, 2):
            rows = padded[looked_at].reshape(len(own), -1)
            said = self._apply(self._linear[f"w{step}_{order}"], rows)
            said += self._floats[f"b{step}_{order}"]
            padded[:-1] += np.maximum(said, 0, out=said)
        return padded[:-1]

    def _head(self, sums: Floats, lengths: Floats) -> Floats:
        """Return the vectors of texts from the sums of their features."""

        def through(rows: Floats, name: str) -> Floats:
            return self._apply(self._linear[name], rows)

        pooled = through(sums, "cnn_W")
        pooled += lengths * self._floats["cnn_b"]
        pooled /= np.sqrt(lengths)
        first = np.maximum(through(pooled, "d0"), 0)
        second = np.maximum(through(pooled, "p1") + through(first, "d1"), 0)
        third = np.maximum(through(second, "d2"), 0)
        return unit_rows(np.tanh(through(second, "p3") + through(third, "d3")))

    def _apply(self, linear: Linear, rows: Floats) -> Floats:
        return linear.apply(rows, np.empty((len(rows), linear.scale.shape[1]), np.float32), self._room)


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


@lru_cache(16)
def _neighbours(lengths: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the places of the two tokens before each, its own and the two behind it, in its text.

    Where a text has none, it is the place behind all tokens.
    """
    counts = np.array(lengths)
    ends = np.cumsum(counts)
    places: NDArray[np.intp] = np.arange(ends[-1])[:, None] + np.arange(-2, 3)
    begin = np.repeat(ends - counts, counts)[:, None]
    end = np.repeat(ends, counts)[:, None]
    return np.where((places >= begin) & (places < end), places, ends[-1])
