"""Google's Universal Sentence Encoder, multilingual 3, 512 dimensions: 16 languages in one space.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", ACL 2020, convolutional
form: three branches look at 2, 3 and 5 tokens in a row; the sum of what they see in a text goes
through a small network.

The package of its weights has them compressed, which only a private copy of 69 MB for each process could
undo. So they are laid out once, in a file in the user's cache folder that every process maps.
"""

import hashlib
import io
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from soulkeep.disk import digest_of
from soulkeep.embedders import groups, verified_file
from soulkeep.embedders.layers import Floats, Linear, normalise_layer, unit_rows
from soulkeep.embedders.tokens import UNIVERSAL, load_tokenizer
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.progress import tell

FILE, SHA256 = (
    "resources/weights.npz",
    "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
)

ORDERS = (2, 3, 5)
"""How many tokens in a row each of the three branches looks at."""

DIMENSIONS = 512

CHUNKS, CHUNK_ROWS = 17, 7_530
"""The rows of the vocabulary's table lie in chunks, each with a range of its own: row r is in chunk
r mod 17 at r // 17."""

_BRANCH, _FEATURES = 256, 1_280
_FLOATS: dict[str, tuple[int, ...]] = {
    **{f"proj_b{order}": (_BRANCH,) for order in ORDERS},
    **{f"ln_g{order}": (_BRANCH,) for order in ORDERS},
    **{f"ln_b{order}": (_BRANCH,) for order in ORDERS},
    **{f"{step}_{order}": (_BRANCH,) for step in ("b1", "b2") for order in ORDERS},
    "ln_g": (_FEATURES,),
    "ln_b": (_FEATURES,),
    "cnn_b": (DIMENSIONS,),
    "scale": (CHUNKS,),
    "lo": (CHUNKS,),
}
_MATRICES: dict[str, tuple[int, int]] = {
    **{f"proj{order}": (DIMENSIONS, _BRANCH) for order in ORDERS},
    **{f"{step}_{order}": (order * _BRANCH, _BRANCH) for step in ("w1", "w2") for order in ORDERS},
    "cnn_W": (_FEATURES, DIMENSIONS),
    "d0": (DIMENSIONS, 320),
    "d1": (320, 320),
    "p1": (DIMENSIONS, 320),
    "d2": (320, DIMENSIONS),
    "p3": (320, DIMENSIONS),
    "d3": (DIMENSIONS, DIMENSIONS),
}
"""What the package has as float32, in the order in which it is laid out: the matrices as int8, of which
they were made, with the scale of each before them; the table of bytes comes behind them."""

LAID_OUT_SHA256 = "ff6bd63fdcd799928e61581454d99e88ee2970db483d44901126bab137220a27"
"""Of the file as it is laid out here, which is the same on every machine."""

_WAIT = 60.0
"""Seconds to wait for another process that lays the weights out, which takes it one or two."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The encoder's arrays by the names that they have in the package."""

    floats: dict[str, Floats]
    matrices: dict[str, tuple[NDArray[np.int8], Floats]]
    """Each with its scale."""
    table: NDArray[np.uint8]
    """The row of bytes of each token, of which a text needs few."""
    mapped: mmap.mmap | None


def load_weights(folder: Path) -> Weights:
    """Return the weights, mapped from a file in `folder` that is made where it is missing or damaged.

    Where it cannot be made, in a folder without permission or room, the same weights are held in memory.

    Raises:
        EmbedderUnavailableError: The package of the weights is missing or has another file.
    """
    file = folder / f"use-multilingual-v3-{LAID_OUT_SHA256[:16]}.weights"
    try:
        if not file.is_file() or digest_of(file) != LAID_OUT_SHA256:
            _lay_out(file)
        with file.open("rb") as stream:
            return _views(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError:
        memory = io.BytesIO()
        _write(memory)
        return _views(memory.getbuffer())


def _lay_out(file: Path) -> None:
    """Write the file so that no process ever sees a part of it, once however many want it.

    Raises:
        OSError: The folder cannot be written to, or another process takes too long.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock"), timeout=_WAIT):
        if file.is_file() and digest_of(file) == LAID_OUT_SHA256:
            return
        part = file.with_suffix(".part")
        try:
            with part.open("wb") as stream:
                _write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def _write(out: BinaryIO) -> None:
    tell("Laying out the model")
    source = verified_file(*UNIVERSAL, FILE, SHA256)
    digest = hashlib.sha256()
    with np.load(source) as archive:
        for block in _blocks(archive):
            digest.update(block)
            out.write(block)
    if digest.hexdigest() != LAID_OUT_SHA256:
        raise EmbedderUnavailableError(
            "universal", f"{source} was read wrongly", "restart the machine: its memory may be faulty"
        )


def _blocks(archive: Any) -> Iterator[bytes]:
    """Yield the bytes of every array, in order; one at a time, as all together are large."""
    for name, shape in _FLOATS.items():
        yield archive[name].reshape(shape).astype("<f4").tobytes()
    matrices = {name: archive[name].reshape(shape) for name, shape in _MATRICES.items()}
    scales = [np.abs(matrix).max() / np.float32(127) for matrix in matrices.values()]
    yield np.array(scales, "<f4").tobytes()
    for matrix, scale in zip(matrices.values(), scales, strict=True):
        yield np.rint(matrix / scale).astype(np.int8).tobytes()
    for number in range(1, CHUNKS + 1):
        yield archive[f"q{number}"].reshape(CHUNK_ROWS, DIMENSIONS).astype(np.uint8).tobytes()


def _views(data: mmap.mmap | memoryview) -> Weights:
    """Return the arrays in the bytes of the file as it is laid out."""
    at = 0

    def view(kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
        nonlocal at
        array: NDArray[Any] = np.frombuffer(data, kind, math.prod(shape), at).reshape(shape)
        at += array.nbytes
        return array

    floats = {name: view("<f4", shape) for name, shape in _FLOATS.items()}
    scales = view("<f4", (len(_MATRICES),))
    matrices = {
        name: (view("i1", shape), np.full((1, shape[1]), scale))
        for (name, shape), scale in zip(_MATRICES.items(), scales, strict=True)
    }
    table = view("u1", (CHUNKS * CHUNK_ROWS, DIMENSIONS))
    return Weights(floats, matrices, table, data if isinstance(data, mmap.mmap) else None)


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
        self._floats, self._table, self._mapped = weights.floats, weights.table, weights.mapped
        parts = [weights.matrices.pop(f"proj{order}") for order in ORDERS]
        bias, self._gain, self._shift = (
            np.concatenate([self._floats[f"{name}{order}"] for order in ORDERS])
            for name in ("proj_b", "ln_g", "ln_b")
        )
        none = np.zeros(1, np.float32)
        self._layers = {
            # Those that are not of the branches have one row for each text.
            name: Linear.of([matrix], scale, none, is_fine=not name.startswith("w"))
            for name, (matrix, scale) in weights.matrices.items()
        }
        matrices, scales = zip(*parts, strict=True)
        self._layers["projection"] = Linear.of(matrices, np.hstack(scales), bias)
        self._leave_pages()

    def _leave_pages(self) -> None:
        """Leave the mapped pages to the system, which keeps them for the next time.

        Else each would count as this process's memory, and texts of all kinds touch nearly all.
        """
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)

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
        for places in groups(range(len(tokens)), _TOKENS, lambda place: len(tokens[place])):
            if len(long := tokens[places[0]]) > _WINDOW:
                sums[places] = 0
                for begin in range(0, len(long), _WINDOW):
                    first = max(0, begin - _HALO)
                    seen = np.array(long[first : begin + _WINDOW + _HALO])
                    features = self._features(seen, [len(seen)])
                    sums[places] += features[begin - first :][:_WINDOW].sum(axis=0)
                continue
            lengths = [len(tokens[place]) for place in places]
            features = self._features(np.concatenate([tokens[place] for place in places]), lengths)
            sums[places] = np.add.reduceat(features, np.cumsum([0, *lengths[:-1]]), axis=0)
        counts = np.array([len(some) for some in tokens], np.float32)[:, None]
        apply = self._apply
        pooled = apply("cnn_W", sums)
        pooled += counts * self._floats["cnn_b"]
        pooled /= np.sqrt(counts)
        inner = np.maximum(apply("d0", pooled), 0)
        second = np.maximum(apply("p1", pooled) + apply("d1", inner), 0)
        third = np.maximum(apply("d2", second), 0)
        return unit_rows(np.tanh(apply("p3", second) + apply("d3", third)))

    def _features(self, ids: NDArray[np.intp], lengths: Sequence[int]) -> Floats:
        """Return what each token means between its neighbours; texts do not see each other."""
        features = np.empty((len(ids), _FEATURES), np.float32)
        embedded, seen = features[:, :DIMENSIONS], _neighbours(tuple(lengths))
        chunks = ids % CHUNKS
        embedded[...] = self._table[chunks * CHUNK_ROWS + ids // CHUNKS]
        self._leave_pages()
        embedded *= self._floats["scale"][chunks, None]
        embedded += self._floats["lo"][chunks, None]
        projected = self._apply("projection", embedded)
        normalise_layer(projected, self._gain, self._shift)
        for branch, order in enumerate(ORDERS):
            # The last row stays zero: it stands for what is before and behind a text.
            own = np.zeros((len(ids) + 1, _BRANCH), np.float32)
            own[:-1] = projected[:, branch * _BRANCH :][:, :_BRANCH]
            looked_at = seen[:, 2 - _BEFORE[order] :][:, :order]
            for step in (1, 2):
                # To each row comes what it and its neighbours say together.
                said = self._apply(f"w{step}_{order}", own[looked_at].reshape(len(ids), -1))
                said += self._floats[f"b{step}_{order}"]
                own[:-1] += np.maximum(said, 0, out=said)
            features[:, DIMENSIONS + branch * _BRANCH :][:, :_BRANCH] = own[:-1]
        return normalise_layer(features, self._floats["ln_g"], self._floats["ln_b"])

    def _apply(self, name: str, rows: Floats) -> Floats:
        layer = self._layers[name]
        return layer.apply(rows, np.empty((len(rows), layer.scale.shape[1]), np.float32))


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
