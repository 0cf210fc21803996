"""The arithmetic that both encoders share, on rows of float32."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SMALL = 1_000_000
"""Up to so many multiplications OpenBLAS does not copy the matrices first, if it has kernels for that
(`SMALL_MATRIX_OPT`, AVX-512). In blocks of this size a layer takes a short question half the time; on
other processors it takes a twentieth more."""

_BLOCKS = (384, 256, 192, 128, 64, 32)
_EPSILON = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer's int8 weights by input and output, side by side, with scale and bias of each output.

    They are widened to float32 as they are used, which is quicker than to read them four times as wide.
    """

    weights: tuple[NDArray[np.int8], ...]
    scale: Floats
    bias: Floats

    def apply(self, rows: Floats, out: Floats, room: Floats) -> Floats:
        """Write `rows @ weights * scale + bias` into `out`; `room` has a float for each weight."""
        height, width = rows.shape[1], self.scale.shape[1]
        wide = room[: height * width].reshape(height, width)
        np.concatenate(self.weights, axis=1, out=wide)
        block = _block(len(rows), height, width)
        np.matmul(rows, _blocks(wide, block), out=_blocks(out, block))
        out *= self.scale
        out += self.bias
        return out


@cache
def _block(count: int, height: int, width: int) -> int:
    """Return how many columns a block has; all of them, where blocks are of no use."""
    sizes = (size for size in (width, *_BLOCKS) if not width % size and count * height * size <= _SMALL)
    return next(sizes, width)


def _blocks(matrix: Floats, size: int) -> Floats:
    height, width = matrix.shape
    return matrix.reshape(height, width // size, size).transpose(1, 0, 2)


def normalise_layer(rows: Floats, gain: Floats, bias: Floats) -> Floats:
    """Give each row the mean 0 and the variance 1, then `gain` and `bias`, in place.

    Ba, Kiros and Hinton, "Layer Normalization", 2016; both models use the epsilon 1e-12.
    """
    width = rows.shape[1]
    rows -= np.add.reduce(rows, axis=1, keepdims=True) / width
    spread = np.einsum("ij,ij->i", rows, rows)
    spread /= width
    spread += _EPSILON
    rows /= np.sqrt(spread, out=spread)[:, None]
    rows *= gain
    rows += bias
    return rows


def unit_rows(rows: Floats) -> Floats:
    """Return the rows at length 1; a row of zeros stays one."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    units: Floats = rows / np.maximum(lengths, _EPSILON)[:, None]
    return units
