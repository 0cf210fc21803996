"""The weights of the multilingual encoder, laid out so that all processes can share them.

Their package has them compressed, which only a private copy of 69 MB for each process could undo. So
they are laid out once, in a file in the user's cache folder that every process maps.
"""

import hashlib
import io
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from soulkeep.embedders.layers import Floats, Linear
from soulkeep.embedders.packages import UNIVERSAL, digest_of, verified_file
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.progress import tell

FILE, SHA256 = (
    "resources/weights.npz",
    "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
)

ORDERS = (2, 3, 5)
"""How many tokens in a row each of the three branches looks at."""

CHUNKS, CHUNK_ROWS, WIDTH = 17, 7_530, 512
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
    "cnn_b": (WIDTH,),
    "scale": (CHUNKS,),
    "lo": (CHUNKS,),
}
_MATRICES: dict[str, tuple[int, int]] = {
    **{f"proj{order}": (WIDTH, _BRANCH) for order in ORDERS},
    **{f"{step}_{order}": (order * _BRANCH, _BRANCH) for step in ("w1", "w2") for order in ORDERS},
    "cnn_W": (_FEATURES, WIDTH),
    "d0": (WIDTH, 320),
    "d1": (320, 320),
    "p1": (WIDTH, 320),
    "d2": (320, WIDTH),
    "p3": (320, WIDTH),
    "d3": (WIDTH, WIDTH),
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
    linear: dict[str, Linear]
    table: "Table"


class Table:
    """The row of bytes of each token, of which a text needs few."""

    def __init__(self, rows: NDArray[np.uint8], mapped: mmap.mmap | None) -> None:
        self._rows = rows
        self._mapped = mapped
        self._begin = 0
        if mapped is not None:
            self._begin = -(-(len(mapped) - rows.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE

    def take(self, tokens: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return copies of the rows of tokens; the mapped pages do not stay this process's.

        The system keeps them for the next time, but each would count as this process's memory, and texts
        of all kinds touch nearly all.
        """
        taken: NDArray[np.uint8] = self._rows[tokens % CHUNKS * CHUNK_ROWS + tokens // CHUNKS]
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED, self._begin)
        return taken


def load_weights(folder: Path) -> Weights:
    """Return the weights, mapped from a file in `folder` that is made where it is missing or damaged.

    Where it cannot be made, in a folder without permission or room, the same weights are held in memory.

    Raises:
        EmbedderUnavailableError: The package of the weights is missing or has another file.
    """
    file = folder / f"use-multilingual-v3-{LAID_OUT_SHA256[:16]}.weights"
    try:
        if not _is_right(file):
            _lay_out(file)
        with file.open("rb") as stream:
            return _views(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError:
        memory = io.BytesIO()
        _write(memory)
        return _views(memory.getbuffer())


def _is_right(file: Path) -> bool:
    return file.is_file() and digest_of(file) == LAID_OUT_SHA256


def _lay_out(file: Path) -> None:
    """Write the file so that no process ever sees a part of it, once however many want it.

    Raises:
        OSError: The folder cannot be written to, or another process takes too long.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock"), timeout=_WAIT):
        if _is_right(file):
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
        yield archive[f"q{number}"].reshape(CHUNK_ROWS, WIDTH).astype(np.uint8).tobytes()


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
    linear = {
        name: Linear((view("i1", shape),), np.full((1, shape[1]), scale), np.zeros(1, np.float32))
        for (name, shape), scale in zip(_MATRICES.items(), scales, strict=True)
    }
    rows = view("u1", (CHUNKS * CHUNK_ROWS, WIDTH))
    return Weights(floats, linear, Table(rows, data if isinstance(data, mmap.mmap) else None))
