"""Vectors as int8 codes in process memory, beside the columns that filters need.

Importing this module imports numpy and the kernel, so it is imported on the first search.
"""

import functools
import itertools
from collections.abc import Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numkong as nk
import numpy as np
from numpy.typing import NDArray

from soulkeep.models import MemoryFilter, QueryVector
from soulkeep.repository.values import CENTRING, SHRINKAGE

Array = NDArray[Any]
Columns = dict[str, Array]

FINE_ROWS = range(2_000, 20_001)
"""So many rows are held with what rounding took away, as many bytes again: at most 18 MB of the default
embedder's. Of others the vectors are read from the store to be measured: more would take too much
memory, and fewer too, as a server has many small homes open, where a recall is quick as it is."""

_TYPES = {"ids": np.int64, "threads": np.int32, "kinds": np.int16, "moments": np.int64}
_CODE_MAX = 127
_FINE = 254
_BLOCK = 64
_SCANNED = 16_384
"""Rows whose products are made at a time: numkong's are twice as wide as those that are kept."""

_SPARE = 8
"""For each so many rows there is room for one more: one that is added seldom moves all of them."""

_FEW = 2
"""Blocks up to which nobody is asked to help."""

_GATHERED = 16
"""Up to one row in so many is copied together and scanned; beyond, scanning all of them is cheaper."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Codes:
    """One int8 code of `dimensions` bytes per vector, in arrays with some room for more.

    A code is the vector divided by its largest component, times 127; its scale undoes that, so that
    code · code · scale is the cosine, to about 0.003. Rows are in the order of their ids. Each part of
    the vectors has an array of its own: it takes three times as long to scan columns of a wider one.
    `fine`, where it is held, is what rounding took away: codes + fine / 254 give the cosine to 0.00003.
    """

    def __init__(self, parts: Sequence[int]) -> None:
        self.dimensions = sum(parts)
        self.count = 0
        self._parts = list(parts)
        self._threads: dict[Hashable, int] = {None: 0}
        self._kinds: dict[Hashable, int] = {}
        self._columns: Columns = {name: np.empty(0, kind) for name, kind in _TYPES.items()}
        self._columns["scales"] = np.empty(0, np.float32)
        empty = np.empty((0, self.dimensions), np.int8)
        self._columns |= {**self._by_part(empty), "fine": empty}
        self._dropped = np.empty(0, np.intp)
        self._sum = np.zeros(self.dimensions)

    @property
    def memory_used(self) -> int:
        """How many bytes the arrays take."""
        return sum(column.nbytes for column in self._columns.values())

    def described(
        self,
        ids: Sequence[int],
        threads: Sequence[str | None],
        kinds: Sequence[str],
        moments: Sequence[int],
    ) -> Columns:
        """Turn ids, threads, types and moments (ms since 1970) into columns."""
        for numbers, named in ((self._threads, threads), (self._kinds, kinds)):
            for value in set(named) - numbers.keys():
                numbers[value] = len(numbers)
        numbered = [self._threads[thread] for thread in threads], [self._kinds[kind] for kind in kinds]
        values = (ids, *numbered, moments)
        return {
            name: np.array(column, kind)
            for (name, kind), column in zip(_TYPES.items(), values, strict=True)
        }

    def begin_with(self, described: Columns) -> None:
        """Make all rows at once, in the order of their ids, without their vectors as yet.

        Vectors stand in the store in the order in which they came; each is put into its row then.
        """
        self.count = 0
        if len(described["ids"]) < FINE_ROWS.start:
            self._columns.pop("fine", None)
        self.reserve(len(described["ids"]))
        self.count = len(described["ids"])
        for name, column in self._columns.items():
            column[: self.count] = described.get(name, 0)
        self._note_dropped()

    def put(self, described: Columns, vectors: Array) -> None:
        """Add or replace rows, one float vector each, in any order.

        A vector without a direction is left out.
        """
        if np.any(np.diff(described["ids"]) < 0):
            order = np.argsort(described["ids"], kind="stable")
            described = {name: column[order] for name, column in described.items()}
            vectors = vectors[order]
        rows = {**described, **self._coded(vectors)}
        scales = rows["scales"]
        places = self._places(described["ids"])
        known = places >= 0
        if known.any():
            self._sum -= self._total(places[known])
            for name, column in self._columns.items():
                column[places[known]] = rows[name][known]
            self._note_dropped()
        added = ~known & (scales > 0)
        rows = {name: column[added] for name, column in rows.items()}
        before, end = self.count, self.count + len(rows["ids"])
        if end == before:
            return
        self.reserve(end)
        for name, column in self._columns.items():
            column[before:end] = rows[name]
        self.count = end
        if before and rows["ids"][0] < self._columns["ids"][before - 1]:
            order = np.argsort(self._column("ids"), kind="stable")
            for column in self._columns.values():
                column[:end] = column[order]
            self._note_dropped()

    def _coded(self, vectors: Array) -> Columns:
        """Return the columns that hold vectors, whose sum is added to that of all."""
        steps, scales = _in_steps(vectors)
        codes = _rounded(steps)
        self._sum += scales @ codes
        columns = {"scales": scales, **self._by_part(codes)}
        if "fine" in self._columns:
            columns["fine"] = _rounded((steps - codes) * _FINE)
        return columns

    def reserve(self, rows: int) -> None:
        """Make room for so many rows, and some more."""
        if rows >= FINE_ROWS.stop:
            self._columns.pop("fine", None)
        capacity = len(self._columns["ids"])
        if rows <= capacity:
            return
        capacity = rows + rows // _SPARE
        for name, column in self._columns.items():
            self._columns[name] = np.empty((capacity, *column.shape[1:]), column.dtype)
            self._columns[name][: self.count] = column[: self.count]

    def drop(self, ids: Sequence[int]) -> None:
        """Forget these rows: they keep their place, and a scale of zero."""
        places = self._places(np.array(ids, np.int64))
        places = np.unique(places[places >= 0])
        self._sum -= self._total(places)
        for name in ("scales", *self._by_part(self._sum)):
            self._columns[name][places] = 0
        self._note_dropped()

    def _note_dropped(self) -> None:
        self._dropped = np.flatnonzero(self._column("scales") == 0)

    def best(self, vector: Array, allowed: MemoryFilter, limit: int) -> dict[int, float]:
        """Return up to `limit` ids that pass the filter and their cosines, most alike first."""
        rows, refused = self._rows(allowed)
        ids = self._column("ids")[rows]
        (scores,) = self._scores(vector, rows, [[1.0] * len(self._parts)])
        scores[refused] = -np.inf
        places = _largest(scores, ids, limit)
        return dict(zip(ids[places].tolist(), scores[places].tolist(), strict=True))

    def near(self, query: QueryVector, allowed: MemoryFilter, depth: int) -> tuple[list[int], Array]:
        """Return the ids of the best `depth` by each weighting, and the question that they are near to.

        What all memories have in common tells nothing: half of their mean is taken from a question that
        is to be centred.
        """
        asked = np.frombuffer(query.embedding, "<f4")
        if query.is_centred:
            mean = self._sum / (self.count - len(self._dropped) + SHRINKAGE)
            asked = asked - (CENTRING * mean).astype(np.float32)
        if list(query.parts) != self._parts:  # hold the codes by these parts
            whole = np.hstack([self._columns.pop(name) for name in self._by_part(self._sum)])
            self._parts = list(query.parts)
            self._columns |= {name: part.copy() for name, part in self._by_part(whole).items()}
        rows, refused = self._rows(allowed)
        ids, every = self._column("ids")[rows], self._scores(asked, rows, query.weightings)
        every[:, refused] = -np.inf
        chosen = [np.empty(0, np.intp), *(_largest(scores, ids, depth) for scores in every)]
        return ids[np.unique(np.concatenate(chosen))].tolist(), asked

    def cosines(self, asked: Array, ids: Collection[int]) -> dict[int, tuple[float, ...]] | None:
        """Return the cosine of each part of a question and of those of these rows that are here, by id.

        None where the rows are not held so finely.
        """
        if "fine" not in self._columns:
            return None
        wanted = np.array(sorted(ids), np.int64)
        places = self._places(wanted)
        here = (places >= 0) & (self._column("scales")[places] > 0)
        wanted, places = wanted[here], places[here]
        # The parts of a unit vector are shorter than it, each by the same.
        scales = len(self._parts) * self._column("scales")[places]
        fine = self._by_part(self._columns["fine"][places] / np.float32(_FINE))
        cosines = [
            ((fine[name] + self._columns[name][places]) @ part * scales).tolist()
            for name, part in self._by_part(asked).items()
        ]
        return dict(zip(wanted.tolist(), zip(*cosines, strict=True), strict=True))

    def _rows(self, allowed: MemoryFilter) -> tuple[slice | Array, Array]:
        """Return which rows to scan, all or the few that pass a filter, and which of them to refuse."""
        threads, kinds, moments = map(self._column, ("threads", "kinds", "moments"))
        conditions = []
        if allowed.thread_id is not None:
            conditions.append((threads == self._threads.get(allowed.thread_id, -1)) | (threads == 0))
        if allowed.memory_type is not None:
            conditions.append(kinds == self._kinds.get(allowed.memory_type, -1))
        if allowed.since is not None:
            conditions.append(moments >= _milliseconds(allowed.since))
        if allowed.until is not None:
            conditions.append(moments <= _milliseconds(allowed.until))
        if not conditions:
            return slice(self.count), self._dropped
        mask = functools.reduce(np.logical_and, conditions)
        mask[self._dropped] = False
        if np.count_nonzero(mask) > self.count // _GATHERED:
            return slice(self.count), ~mask
        return np.flatnonzero(mask), np.empty(0, np.intp)

    def _scores(
        self, vector: Array, rows: slice | Array, weightings: Sequence[Sequence[float]]
    ) -> Array:
        """Return a row for each weighting: the weighed sum of the parts' shares of the products."""
        scales = self._column("scales")[rows]
        products = np.empty((len(self._parts), len(scales)), np.float32)
        lengths, blocks = [], []
        for product, (name, part) in zip(products, self._by_part(vector).items(), strict=True):
            steps, (scale,) = _in_steps(part[np.newaxis, :])
            query = _rounded(steps)
            # Codes are those of the direction alone.
            lengths.append(scale * np.linalg.norm(part))
            codes = self._column(name)[rows]
            places = (slice(begin, begin + _SCANNED) for begin in range(0, len(codes), _SCANNED))
            blocks += [(query, codes[place], product[place]) for place in places]
        _multiply(blocks)
        scores: Array = np.array(weightings, np.float32) * np.array(lengths, np.float32) @ products
        scores *= scales
        return scores

    def _total(self, rows: Array) -> Array:
        """Return the sum of the vectors of these rows."""
        scales = self._column("scales")[rows]
        total: Array = np.concatenate(
            [scales @ self._column(name)[rows] for name in self._by_part(self._sum)]
        )
        return total

    def _by_part(self, vectors: Array) -> Columns:
        """Return views of the parts of vectors, by the names of their columns."""
        ends = itertools.accumulate(self._parts)
        return {
            f"codes {n}": vectors[..., end - length : end]
            for n, (length, end) in enumerate(zip(self._parts, ends, strict=True))
        }

    def _column(self, name: str) -> Array:
        return self._columns[name][: self.count]

    def _places(self, ids: Array) -> Array:
        """Return the row of each id, -1 where it has none."""
        known = self._column("ids")
        if len(known) == 0:
            return np.full(len(ids), -1)
        places = np.searchsorted(known, ids)
        places[places == len(known)] = 0
        return np.where(known[places] == ids, places, -1)


@functools.cache
def _helper() -> ThreadPoolExecutor:
    """Return the thread that helps with large scans, one for all homes of a process."""
    return ThreadPoolExecutor(1, "scan")


def _multiply(blocks: Sequence[tuple[Array, Array, Array]]) -> None:
    """Write into the third array of each block the products of the first with the rows of the second.

    Memory is read by two processors sooner than by one. Who is asked to help while it is busy is not
    waited for.
    """
    left = iter(blocks)

    def work() -> None:
        for query, codes, out in left:
            out[:] = np.asarray(nk.cdist(query, codes, "dot"))[0]

    helping = _helper().submit(work) if len(blocks) > _FEW else None
    work()
    if helping is not None and not helping.cancel():
        helping.result()


def _in_steps(vectors: Array) -> tuple[Array, Array]:
    """Return vectors with 127 as their largest component, and scales.

    One of zeros or with NaN or infinity gets the scale 0.
    """
    peaks = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
    sound = np.isfinite(peaks) & (peaks > 0)
    if not sound.all():
        vectors = np.where(sound[:, np.newaxis], vectors, 0)
        peaks = np.where(sound, peaks, 1)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scales = np.where(sound, peaks / np.where(sound, lengths * _CODE_MAX, 1), 0)
    return vectors * (_CODE_MAX / peaks)[:, np.newaxis], scales


def _rounded(steps: Array) -> Array:
    return np.rint(steps).astype(np.int8)


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


def _milliseconds(timestamp: str) -> int:
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
