"""Vectors as int8 codes in process memory, beside the columns that filters need.

Importing this module imports numpy and the kernel, so it is imported on the first search.
"""

import functools
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import simsimd
from numpy.typing import NDArray

from soulkeep.models import MemoryFilter

Array = NDArray[Any]
Columns = dict[str, Array]

_TYPES = {"ids": np.int64, "threads": np.int32, "kinds": np.int16, "moments": np.int64}
_CODE_MAX = 127
_BLOCK = 64
_GATHERED = 16
"""Up to one row in so many is copied together and scanned; beyond, scanning all of them is cheaper."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Codes:
    """One int8 code of `dimensions` bytes per vector, in arrays that double when they are full.

    A code is the vector divided by its largest component, times 127; its scale undoes that, so that
    code · code · scale ranks like the cosine. Rows are in no order.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.count = 0
        self._threads: dict[Hashable, int] = {None: 0}
        self._kinds: dict[Hashable, int] = {}
        self._columns: Columns = {name: np.empty(0, kind) for name, kind in _TYPES.items()}
        self._columns["scales"] = np.empty(0, np.float32)
        self._columns["codes"] = np.empty((0, dimensions), np.int8)
        self._scores = np.empty((1, 0), np.float32)
        self._gathered = np.empty((0, dimensions), np.int8)

    def described(self, rows: Sequence[tuple[int, str | None, str, int]]) -> Columns:
        """Turn rows of id, thread, type and moment (ms since 1970) into columns."""
        ids, threads, kinds, moments = zip(*rows, strict=True) if rows else ((), (), (), ())
        values = (ids, _interned(self._threads, threads), _interned(self._kinds, kinds), moments)
        return {
            name: np.array(column, kind)
            for (name, kind), column in zip(_TYPES.items(), values, strict=True)
        }

    def append(self, described: Columns, vectors: Array) -> None:
        """Add float vectors, one a row, with their columns; one without a direction is left out."""
        codes, scales = _quantised(vectors)
        sound = scales > 0
        values = {**described, "codes": codes, "scales": scales}
        end = self.count + int(np.count_nonzero(sound))
        self._reserve(end)
        for name, column in self._columns.items():
            column[self.count : end] = values[name][sound]
        self.count = end

    def _reserve(self, rows: int) -> None:
        capacity = len(self._columns["ids"])
        if rows <= capacity:
            return
        capacity = max(rows, 2 * capacity)
        for name, column in self._columns.items():
            self._columns[name] = np.empty((capacity, *column.shape[1:]), column.dtype)
            self._columns[name][: self.count] = column[: self.count]
        self._scores = np.empty((1, capacity), np.float32)
        self._gathered = np.empty((capacity // _GATHERED + 1, self.dimensions), np.int8)

    def drop(self, ids: Sequence[int]) -> None:
        """Forget these rows; those at the end take their places."""
        gone = np.isin(self._columns["ids"][: self.count], np.array(ids, np.int64))
        kept = self.count - int(np.count_nonzero(gone))
        holes, movers = np.flatnonzero(gone[:kept]), kept + np.flatnonzero(~gone[kept:])
        for column in self._columns.values():
            column[holes] = column[movers]
        self.count = kept

    def best(self, vector: Array, allowed: MemoryFilter, limit: int) -> list[int]:
        """Return up to `limit` ids that pass the filter, most alike first, equals by id."""
        ids, codes, scales = (self._columns[name][: self.count] for name in ("ids", "codes", "scales"))
        query, scores = _quantised(vector[np.newaxis, :])[0], self._scores[:, : self.count]
        mask = self._mask(allowed)
        if mask is not None and np.count_nonzero(mask) <= self.count // _GATHERED:
            chosen, mask = np.flatnonzero(mask), None
            ids, scales, scores = ids[chosen], scales[chosen], scores[:, : len(chosen)]
            # `clip` lets numpy write to `out` without a copy of its own.
            codes = np.take(codes, chosen, axis=0, out=self._gathered[: len(chosen)], mode="clip")
        if len(ids) == 0:
            return []
        simsimd.cdist(query, codes, "inner", out=scores, out_dtype="float32")
        flat = scores[0]
        flat *= scales
        if mask is not None:
            np.copyto(flat, -np.inf, where=~mask)
        found: list[int] = ids[_largest(flat, ids, limit)].tolist()
        return found

    def _mask(self, allowed: MemoryFilter) -> Array | None:
        threads, kinds, moments = (
            self._columns[name][: self.count] for name in ("threads", "kinds", "moments")
        )
        conditions = []
        if allowed.thread_id is not None:
            conditions.append((threads == self._threads.get(allowed.thread_id, -1)) | (threads == 0))
        if allowed.memory_type is not None:
            conditions.append(kinds == self._kinds.get(allowed.memory_type, -1))
        if allowed.since is not None:
            conditions.append(moments >= _milliseconds(allowed.since))
        if allowed.until is not None:
            conditions.append(moments <= _milliseconds(allowed.until))
        return functools.reduce(np.logical_and, conditions) if conditions else None


def _quantised(vectors: Array) -> tuple[Array, Array]:
    """Return codes and scales; a vector of zeros or with NaN or infinity gets the scale 0."""
    peaks = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
    sound = np.isfinite(peaks) & (peaks > 0)
    if not sound.all():
        vectors = np.where(sound[:, np.newaxis], vectors, 0)
        peaks = np.where(sound, peaks, 1)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scales = np.where(sound, peaks / np.where(sound, lengths, 1), 0)
    codes = vectors * (_CODE_MAX / peaks)[:, np.newaxis]
    return np.rint(codes, out=codes).astype(np.int8), scales


def _largest(scores: Array, ids: Array, limit: int) -> Array:
    """Return the positions of the `limit` largest scores, largest first, equals by id."""
    floor = -np.inf
    blocks = len(scores) // _BLOCK
    if blocks > limit:
        # The limit-th largest of the blocks' maxima is no larger than the limit-th largest score:
        # one pass then leaves few to sort.
        peaks = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        floor = np.partition(peaks, blocks - limit)[blocks - limit]
    kept = np.flatnonzero(scores >= max(floor, np.finfo(np.float32).min))
    if len(kept) > limit:
        values = scores[kept]
        kept = kept[values >= np.partition(values, len(kept) - limit)[len(kept) - limit]]
    order: Array = kept[np.lexsort((ids[kept], -scores[kept]))][:limit]
    return order


def _interned(numbers: dict[Hashable, int], values: Sequence[Hashable]) -> list[int]:
    for value in set(values) - numbers.keys():
        numbers[value] = len(numbers)
    return [numbers[value] for value in values]


def _milliseconds(timestamp: str) -> int:
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
