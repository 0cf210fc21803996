"""What encoders are made of: layers, their arithmetic on rows of float32, and the arrays of ONNX files.

Processes that read the same file share its pages. Only what is needed of the format of ONNX is read:
ModelProto.graph (7), GraphProto.initializer (5) and of TensorProto dims (1), data_type (2), name (8) and
raw_data (9), as onnx.proto3 numbers them.
"""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SMALL = 1_000_000
"""Up to so many multiplications OpenBLAS does not copy the matrices first, if it has kernels for that
(`SMALL_MATRIX_OPT`, AVX-512). In blocks of this size a layer takes a short question half the time; on
other processors it takes a twentieth more."""

_BLOCKS = (384, 256, 192, 128, 64)
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
        shares, block = _blocks(len(rows), height, width)
        share = height // shares
        wide = room[: share * width].reshape(share, width)
        blocks = wide.reshape(share, width // block, block).transpose(1, 0, 2)
        for first in range(0, height, share):
            np.concatenate([part[first : first + share] for part in self.weights], axis=1, out=wide)
            some = out if first == 0 else np.empty_like(out)
            into = some.reshape(-1, width // block, block).transpose(1, 0, 2)
            np.matmul(rows[:, first : first + share], blocks, out=into)
            if first:
                out += some
        out *= self.scale
        out += self.bias
        return out


@lru_cache(1_024)
def _blocks(count: int, height: int, width: int) -> tuple[int, int]:
    """Return in how many shares the inputs are taken, and how many outputs a block of one has.

    A block narrower than 64 takes longer than half of the inputs at a time does. It is one block of all,
    where smaller ones are of no use.
    """
    for shares in (1, 2, 4):
        for block in (width, *_BLOCKS):
            fits = count * height * block <= _SMALL * shares
            if fits and not (width % block or height % shares):
                return shares, block
    return 1, width


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


_GRAPH, _INITIALIZER = 7, 5
_DIMENSIONS, _TYPE, _NAME, _DATA = 1, 2, 8, 9
_TYPES = {1: "<f4", 3: "i1", 7: "<i8", 9: "?"}
_TOO_MANY = 2**40
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5

Arrays = dict[str, NDArray[Any]]
Span = tuple[int, int]


class OnnxError(ValueError):
    """The file is not an ONNX file, or uses a part of the format that is not read here."""


def read_arrays(file: Path) -> Arrays:
    """Return the named arrays of an ONNX file: bytes as views of the file, wider types as copies.

    Raises:
        OnnxError: The file cannot be understood.
        OSError: The file cannot be read.
    """
    if not file.stat().st_size:
        raise OnnxError(f"{file} is empty")
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return dict(
            _array(mapped, tensor)
            for field, graph in _fields(mapped, (0, len(mapped)))
            if field == _GRAPH and isinstance(graph, tuple)
            for part, tensor in _fields(mapped, graph)
            if part == _INITIALIZER and isinstance(tensor, tuple)
        )
    except (IndexError, UnicodeDecodeError) as error:
        raise OnnxError(f"{file} ends within a field or has a name that is no text") from error


def _array(mapped: mmap.mmap, tensor: Span) -> tuple[str, NDArray[Any]]:
    shape: list[int] = []
    name, code, data = "", 0, (0, 0)
    for field, value in _fields(mapped, tensor):
        if field == _DIMENSIONS:
            shape += [value] if isinstance(value, int) else _packed(mapped, value)
        elif field == _TYPE and isinstance(value, int):
            code = value
        elif field == _NAME and isinstance(value, tuple):
            name = mapped[slice(*value)].decode()
        elif field == _DATA and isinstance(value, tuple):
            data = value
    if code not in _TYPES:
        raise OnnxError(f"the array {name!r} has the type {code}, which is not read")
    kind, count = np.dtype(_TYPES[code]), math.prod(shape)
    if data[1] - data[0] != count * kind.itemsize or any(size >= _TOO_MANY for size in shape):
        raise OnnxError(f"the array {name!r} has {data[1] - data[0]} bytes for the shape {shape}")
    array: NDArray[Any] = np.frombuffer(mapped, kind, count, data[0]).reshape(shape)
    # A file does not align its arrays, and arithmetic is slow on those that are not.
    return name, array if kind.itemsize == 1 else array.copy()


def _fields(mapped: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield the number of each field of a message, with its value or where its bytes are."""
    at, end = span
    while at < end:
        key, at = _varint(mapped, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(mapped, at)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            length, at = _varint(mapped, at)
        elif kind in (_FIXED_32, _FIXED_64):
            length = 4 if kind == _FIXED_32 else 8
        else:
            raise OnnxError(f"byte {at} has a field of kind {kind}, which the format does not have")
        if at + length > end:
            raise OnnxError(f"byte {at} begins a field that ends behind its message")
        yield key >> 3, (at, at + length)
        at += length


def _packed(mapped: mmap.mmap, span: Span) -> list[int]:
    numbers: list[int] = []
    at, end = span
    while at < end:
        number, at = _varint(mapped, at)
        numbers.append(number)
    return numbers


def _varint(mapped: mmap.mmap, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = mapped[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
